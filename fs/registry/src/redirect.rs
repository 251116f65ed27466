//! Where a registry sent a blob request to: remembered per blob and host until it fails or its visible expiry.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use url::Url;

use crate::limits::REDIRECT_MARGIN;
use crate::timestamp::{compact, epoch_seconds, rfc3339};

/// The redirect target of one blob at one host.
#[derive(Default)]
pub(crate) struct Target(Mutex<Option<Kept>>);

struct Kept {
    url: Url,
    /// Where it answered from: `url`, or where that led.
    answered: Url,
    expires: Option<SystemTime>,
}

impl Target {
    /// The target, if there is one that is still good.
    pub(crate) fn get(&self) -> Option<Url> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|kept| kept.expires.is_some_and(|expires| expires <= SystemTime::now() + REDIRECT_MARGIN)) {
            *kept = None;
        }
        kept.as_ref().map(|kept| kept.url.clone())
    }

    pub(crate) fn set(&self, url: Url, answered: Url) {
        let expires = expiry(&url);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept { url, answered, expires });
    }

    /// Forgets the target if it is still the one that led to `url`; another may have been found meanwhile.
    pub(crate) fn forget(&self, url: &Url) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|kept| kept.url == *url || kept.answered == *url) {
            *kept = None;
        }
    }
}

/// When a signed URL ends: S3 and its kin (`X-Amz-Date` and `X-Amz-Expires`, `Expires`), Google (`X-Goog-…`), Azure (`se`).
fn expiry(url: &Url) -> Option<SystemTime> {
    let parameter = |name: &str| url.query_pairs().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.into_owned());
    for vendor in ["X-Amz", "X-Goog"] {
        if let (Some(date), Some(seconds)) = (parameter(&format!("{vendor}-Date")), parameter(&format!("{vendor}-Expires"))) {
            return compact(&date)?.checked_add(Duration::from_secs(seconds.parse().ok()?));
        }
    }
    if let Some(expires) = parameter("Expires") {
        return epoch_seconds(&expires);
    }
    parameter("se").and_then(|end| rfc3339(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_signed_urls_is_seen() {
        let seconds = |query: &str| {
            let expires = expiry(&Url::parse(&format!("https://s.example/b?{query}")).unwrap())?;
            Some(expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(seconds("X-Amz-Date=19941106T084937Z&X-Amz-Expires=1200&X-Amz-Signature=s"), Some(784_112_977));
        assert_eq!(seconds("X-Goog-Date=19941106T084937Z&X-Goog-Expires=0"), Some(784_111_777));
        assert_eq!(seconds("Expires=784111777&Signature=s"), Some(784_111_777));
        assert_eq!(seconds("sv=1&se=1994-11-06T08%3A49%3A37Z"), Some(784_111_777));
        assert_eq!(seconds("X-Amz-Date=x&X-Amz-Expires=1200"), None);
        assert_eq!(seconds("a=b"), None);
    }

    #[test]
    fn a_target_is_kept_until_it_ends_or_fails() {
        let target = Target::default();
        let lasting = Url::parse("https://s.example/b").unwrap();
        target.set(lasting.clone(), Url::parse("https://node.example/b").unwrap());
        assert_eq!(target.get(), Some(lasting.clone()));
        target.forget(&Url::parse("https://s.example/other").unwrap());
        assert_eq!(target.get(), Some(lasting.clone()));
        target.forget(&lasting);
        assert_eq!(target.get(), None);
        let ended = Url::parse("https://s.example/b?Expires=784111777").unwrap();
        target.set(ended.clone(), ended);
        assert_eq!(target.get(), None);
    }
}
