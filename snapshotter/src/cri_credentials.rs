//! The credentials that kubelets sent with their pulls, by image.
//!
//! They are kept in memory, the newest of each image, and so many images at most. With a file besides, they outlive the process.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use snap_registry::{Credential, CredentialProvider};

use crate::cri_credentials_file::CredentialsFile;
use crate::cri_pull::ImageName;
use crate::limits::MAX_CRI_CREDENTIALS;

/// Credentials by registry and repository, for [`ClientOptions::credentials`](snap_registry::ClientOptions::credentials).
///
/// A credential is given for the repository that it came for and for no other, even in the same registry.
pub struct CriCredentials {
    kept: Mutex<LruCache<ImageName, Credential>>,
    file: Option<CredentialsFile>,
}

impl CriCredentials {
    /// None yet. With `file`, those that an earlier process wrote there; what cannot be read of it is warned about and left out.
    ///
    /// The file holds the secrets as they are. It is its owner's alone (0600), and replaced as a whole.
    pub fn new(file: Option<PathBuf>) -> Self {
        let mut kept = LruCache::new(NonZeroUsize::new(MAX_CRI_CREDENTIALS).unwrap_or(NonZeroUsize::MIN));
        let file = file.map(CredentialsFile::new);
        if let Some(file) = &file {
            match file.read() {
                // The least recently used come first.
                Ok(read) => read.into_iter().for_each(|(name, credential)| drop(kept.put(name, credential))),
                Err(error) => tracing::warn!(%error, "going on without the credentials of earlier pulls"),
            }
        }
        Self { kept: Mutex::new(kept), file }
    }

    /// How many images there is a credential for.
    pub fn len(&self) -> usize {
        self.kept().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    /// Keeps `credential` for `name`, in place of an older one. `None`: it is the one that is there already.
    pub(crate) fn keep(&self, name: ImageName, credential: Credential) -> Option<Kept> {
        let mut kept = self.kept();
        if kept.get(&name) == Some(&credential) {
            return None;
        }
        let before = kept.put(name.clone(), credential.clone());
        Some(Kept { name, credential, before })
    }

    /// Undoes a [`Self::keep`], unless a newer credential has come meanwhile: the pull that it came with failed.
    pub(crate) fn withdraw(&self, undone: Kept) {
        let mut kept = self.kept();
        if kept.peek(&undone.name) != Some(&undone.credential) {
            return;
        }
        match undone.before {
            Some(before) => kept.put(undone.name, before),
            None => kept.pop(&undone.name),
        };
    }

    /// Writes the file, if there is to be one. Blocks; a failure is warned about, as memory has them all the same.
    pub(crate) fn save(&self) {
        let Some(file) = &self.file else { return };
        // Taken under the file's own lock, so that of two saves the later one has the later state.
        let entries = || self.kept().iter().rev().map(|(name, credential)| (name.clone(), credential.clone())).collect();
        if let Err(error) = file.write(entries) {
            tracing::warn!(%error, "credentials of pulls were not written");
        }
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<ImageName, Credential>> {
        // Never left half changed, so a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A credential that was just kept, and the one that it replaced.
pub(crate) struct Kept {
    name: ImageName,
    credential: Credential,
    before: Option<Credential>,
}

impl CredentialProvider for CriCredentials {
    fn credential(&self, host: &str, repository: &str) -> Option<Credential> {
        self.kept().get(&ImageName { registry: host.to_owned(), repository: repository.to_owned() }).cloned()
    }
}

impl fmt::Debug for CriCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CriCredentials").field("images", &self.len()).field("file", &self.file).finish()
    }
}

#[cfg(test)]
mod tests {
    use snap_registry::Secret;

    use super::*;

    fn name(repository: &str) -> ImageName {
        ImageName { registry: "r.example".to_owned(), repository: repository.to_owned() }
    }

    fn password(text: &str) -> Credential {
        Credential::Password { username: "me".to_owned(), password: Secret::new(text) }
    }

    fn keep(credentials: &CriCredentials, repository: &str, text: &str) -> Option<Kept> {
        credentials.keep(name(repository), password(text))
    }

    #[test]
    fn the_newest_of_an_image_is_given_and_no_others() {
        let credentials = CriCredentials::new(None);
        keep(&credentials, "a", "one").unwrap();
        keep(&credentials, "a", "two").unwrap();
        assert!(keep(&credentials, "a", "two").is_none());
        assert_eq!(credentials.credential("r.example", "a"), Some(password("two")));
        for (host, repository) in [("r.example", "b"), ("r.example:5000", "a"), ("r.example", "a/b")] {
            assert_eq!(credentials.credential(host, repository), None);
        }
    }

    #[test]
    fn a_pull_that_failed_leaves_what_was_there() {
        let credentials = CriCredentials::new(None);
        let first = keep(&credentials, "a", "good").unwrap();
        let bad = keep(&credentials, "a", "bad").unwrap();
        credentials.withdraw(bad);
        assert_eq!(credentials.credential("r.example", "a"), Some(password("good")));
        let bad = keep(&credentials, "a", "bad").unwrap();
        keep(&credentials, "a", "better").unwrap();
        credentials.withdraw(bad);
        assert_eq!(credentials.credential("r.example", "a"), Some(password("better")));
        credentials.withdraw(first);
        assert_eq!(credentials.credential("r.example", "a"), Some(password("better")));
        let only = keep(&credentials, "b", "only").unwrap();
        credentials.withdraw(only);
        assert_eq!(credentials.credential("r.example", "b"), None);
    }

    #[test]
    fn the_images_are_bounded_and_the_least_used_goes() {
        let credentials = CriCredentials::new(None);
        let max = MAX_CRI_CREDENTIALS;
        for number in 0..max {
            keep(&credentials, &number.to_string(), "x");
        }
        credentials.credential("r.example", "0");
        keep(&credentials, "new", "x");
        assert_eq!(credentials.len(), max);
        assert!(credentials.credential("r.example", "0").is_some() && credentials.credential("r.example", "1").is_none());
    }

    #[test]
    fn a_file_brings_them_back_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        let credentials = CriCredentials::new(Some(path.clone()));
        credentials.save();
        for number in 0..MAX_CRI_CREDENTIALS {
            keep(&credentials, &number.to_string(), "secret\n\"\u{1}");
        }
        credentials.keep(name("0"), Credential::IdentityToken(Secret::new("identity")));
        credentials.keep(name("1"), Credential::RegistryToken(Secret::new("registry")));
        credentials.save();
        let again = CriCredentials::new(Some(path));
        assert_eq!(again.len(), MAX_CRI_CREDENTIALS);
        assert_eq!(again.credential("r.example", "0"), Some(Credential::IdentityToken(Secret::new("identity"))));
        assert_eq!(again.credential("r.example", "1"), Some(Credential::RegistryToken(Secret::new("registry"))));
        keep(&again, "new", "x");
        assert_eq!(again.credential("r.example", "2"), None);
        assert_eq!(again.credential("r.example", "3"), Some(password("secret\n\"\u{1}")));
    }

    #[test]
    fn debug_shows_no_secret() {
        let credentials = CriCredentials::new(None);
        keep(&credentials, "a", "hunter2");
        assert_eq!(format!("{credentials:?}"), "CriCredentials { images: 1, file: None }");
    }
}
