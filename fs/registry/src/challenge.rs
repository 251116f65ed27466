//! `WWW-Authenticate` (RFC 9110, section 11.6.1): several challenges in one header, several headers, quoted strings.

use crate::limits::CHALLENGE_MAX_BYTES;

/// One way a server offers to authorize.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The scheme in lower case.
    scheme: String,
    /// The parameters, names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(crate) fn is_basic(&self) -> bool {
        self.scheme == "basic"
    }

    pub(crate) fn is_bearer(&self) -> bool {
        self.scheme == "bearer"
    }

    /// The value of a parameter that is there and not empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// All challenges of all headers, in order. What makes no sense is passed over.
pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut left = CHALLENGE_MAX_BYTES;
    for header in headers {
        let Some(rest) = left.checked_sub(header.len()) else { break };
        left = rest;
        parse_one(header, &mut challenges);
    }
    challenges
}

/// The one to answer: Bearer if it says where the tokens are, else Basic.
pub(crate) fn choose(challenges: Vec<Challenge>) -> Option<Challenge> {
    let bearer = challenges.iter().find(|challenge| challenge.is_bearer() && challenge.parameter("realm").is_some());
    bearer.or_else(|| challenges.iter().find(|challenge| challenge.is_basic())).cloned()
}

fn parse_one(header: &str, challenges: &mut Vec<Challenge>) {
    let mut rest = header;
    // Parameters belong to a scheme of their own header.
    let first = challenges.len();
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
        let length = rest.bytes().take_while(|byte| is_token(*byte)).count();
        if length == 0 {
            // Nothing, or a character that has no place here.
            let Some(character) = rest.chars().next() else { return };
            rest = &rest[character.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(length);
        let word = word.to_ascii_lowercase();
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = parse_value(value.trim_start());
            if let Some(challenge) = challenges.get_mut(first..).and_then(<[Challenge]>::last_mut) {
                challenge.parameters.push((word, value));
            }
            rest = after;
        } else {
            challenges.push(Challenge { scheme: word, parameters: Vec::new() });
            rest = after;
        }
    }
}

/// A token or a quoted string, and what follows. A string without its closing quote ends with the header.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Challenge { scheme: scheme.to_owned(), parameters }
    }

    #[test]
    fn challenges_of_real_servers_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push""#;
        let expected = challenge(
            "bearer",
            &[("realm", "https://auth.docker.io/token"), ("service", "registry.docker.io"), ("scope", "repository:library/a:pull,push")],
        );
        assert_eq!(parse([hub].into_iter()), [expected]);
        for (header, expected) in [
            ("Basic realm=\"a \\\"b\\\" c\"", vec![challenge("basic", &[("realm", "a \"b\" c")])]),
            ("Basic", vec![challenge("basic", &[])]),
            ("BEARER Realm = x , Service=y", vec![challenge("bearer", &[("realm", "x"), ("service", "y")])]),
            ("Basic realm=\"x\", Bearer realm=\"y\"", vec![challenge("basic", &[("realm", "x")]), challenge("bearer", &[("realm", "y")])]),
            ("Bearer realm=\"open", vec![challenge("bearer", &[("realm", "open")])]),
            ("realm=\"x\"", vec![]),
            ("", vec![]),
            (",,;é Basic", vec![challenge("basic", &[])]),
        ] {
            assert_eq!(parse([header].into_iter()), expected, "{header}");
        }
    }

    #[test]
    fn several_headers_are_one_list_and_a_flood_is_cut() {
        assert_eq!(parse(["Negotiate", "Basic realm=x", "y=z"].into_iter()).len(), 2);
        let flood = "Basic, ".repeat(CHALLENGE_MAX_BYTES);
        assert!(parse([flood.as_str()].into_iter()).is_empty());
    }

    #[test]
    fn bearer_goes_before_basic_if_it_has_a_realm() {
        let chosen = |header: &'static str| choose(parse([header].into_iter())).map(|challenge| challenge.is_bearer());
        assert_eq!(chosen("Basic realm=x, Bearer realm=y"), Some(true));
        assert_eq!(chosen("Bearer service=y, Basic realm=x"), Some(false));
        assert_eq!(chosen("Negotiate"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,120}") {
            parse([text.as_str()].into_iter());
        }

        #[test]
        fn quoted_values_come_back(value in "[ -~]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{escaped}\",x=y");
            prop_assert_eq!(parse([header.as_str()].into_iter()), [challenge("bearer", &[("realm", &value), ("x", "y")])]);
        }
    }
}
