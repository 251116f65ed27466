//! The server's own token server, at `/token`.

use std::collections::HashMap;

use serde_json::json;

/// How tokens are given out and how long they last.
#[derive(Debug, Clone, Default)]
pub struct TokenAuth {
    /// Who gets tokens; `None`: anyone.
    pub user: Option<(String, String)>,
    /// The identity token that may be traded for tokens with POST, and is given to a user who asks for an offline token.
    pub identity_token: Option<String>,
    /// What `expires_in` says, in seconds.
    pub expires_in: Option<u64>,
    /// A token is refused after so many requests, whatever it says.
    pub requests_per_token: Option<u32>,
    /// Another realm than its own; for realms that must not be asked.
    pub realm: Option<String>,
}

/// Tokens that were given out, with the requests each is still good for.
#[derive(Default)]
pub(super) struct Tokens {
    given: u32,
    left: HashMap<String, Option<u32>>,
}

impl Tokens {
    /// Whether the header holds a token that is still good. Counts.
    pub(super) fn accepts(&mut self, authorization: Option<&str>) -> bool {
        let Some(token) = authorization.and_then(|header| header.strip_prefix("Bearer ")) else { return false };
        match self.left.get_mut(token) {
            None | Some(Some(0)) => false,
            Some(Some(left)) => {
                *left -= 1;
                true
            }
            Some(None) => true,
        }
    }

    /// Answers a request for a token: its JSON, or `None` if it is refused.
    pub(super) fn give(&mut self, auth: &TokenAuth, authorization: Option<&str>, query: &str, form: Option<&str>) -> Option<String> {
        let is_allowed = match (form, &auth.user, &auth.identity_token) {
            (Some(form), _, Some(identity)) => {
                form.contains("grant_type=refresh_token") && form.split('&').any(|field| field == format!("refresh_token={identity}"))
            }
            (Some(_), _, None) => false,
            (None, Some((username, password)), _) => authorization == Some(&super::server::basic_header(username, password)),
            (None, None, None) => true,
            (None, None, Some(_)) => false,
        };
        if !is_allowed {
            return None;
        }
        self.given += 1;
        let token = format!("token-{}", self.given);
        self.left.insert(token.clone(), auth.requests_per_token);
        let mut answer = json!({"token": token});
        if let Some(seconds) = auth.expires_in {
            answer["expires_in"] = json!(seconds);
        }
        if let Some(identity) = auth.identity_token.as_ref().filter(|_| query.split('&').any(|field| field == "offline_token=true")) {
            answer["refresh_token"] = json!(identity);
        }
        Some(answer.to_string())
    }
}
