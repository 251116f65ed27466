//! The file that holds credentials of pulls between two processes, where one is configured.
//!
//! JSON: `{"version":1,"credentials":[{"registry":…,"repository":…,"username":…,"password":…}]}`, or with `identity_token` or
//! `registry_token` in place of the last two; the least recently used come first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use snap_registry::{Credential, Secret};

use crate::cri_pull::ImageName;
use crate::limits::MAX_CRI_CREDENTIALS_FILE_BYTES;

const VERSION: u32 = 1;
/// Its owner's alone.
const MODE: u32 = 0o600;
const MODE_OF_OTHERS: u32 = 0o077;

/// Why the file could not be read or written. None of its contents is shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsFileError {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: larger than {MAX_CRI_CREDENTIALS_FILE_BYTES} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: line {line}, column {column} is not what a file of credentials has there", path.display())]
    Json { path: PathBuf, line: usize, column: usize },
    #[error("{}: version {version} is not one that is known here", path.display())]
    Version { path: PathBuf, version: u32 },
}

#[derive(Debug)]
pub(crate) struct CredentialsFile {
    path: PathBuf,
    /// Held by whoever is writing.
    writing: Mutex<()>,
}

// No `Debug`: the secrets are as they are on disk.
#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    credentials: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    registry: String,
    repository: String,
    #[serde(flatten)]
    form: Form,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Password { username: String, password: String },
    IdentityToken { identity_token: String },
    RegistryToken { registry_token: String },
}

impl CredentialsFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, writing: Mutex::default() }
    }

    /// What is there; nothing, where there is no file.
    pub(crate) fn read(&self) -> Result<Vec<(ImageName, Credential)>, CredentialsFileError> {
        let path = || self.path.clone();
        let failed = |source| CredentialsFileError::Io { path: path(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.mode() & MODE_OF_OTHERS != 0 {
            tracing::warn!(path = %self.path.display(), "credentials that others than their owner may read");
        }
        let mut bytes = Vec::new();
        file.take(MAX_CRI_CREDENTIALS_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_CRI_CREDENTIALS_FILE_BYTES {
            return Err(CredentialsFileError::TooLarge { path: path() });
        }
        // The parser's own text would quote what it did not expect.
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| CredentialsFileError::Json {
            path: path(),
            line: error.line(),
            column: error.column(),
        })?;
        match contents.version {
            VERSION => Ok(contents.credentials.into_iter().map(Entry::into_pair).collect()),
            version => Err(CredentialsFileError::Version { path: path(), version }),
        }
    }

    /// Replaces the file as a whole with what `entries` gives once no other write is under way.
    pub(crate) fn write(&self, entries: impl FnOnce() -> Vec<(ImageName, Credential)>) -> Result<(), CredentialsFileError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let credentials = entries().into_iter().map(Entry::from_pair).collect();
        let failed = |source: io::Error| CredentialsFileError::Io { path: self.path.clone(), source };
        let text = serde_json::to_vec(&Contents { version: VERSION, credentials }).map_err(|error| failed(error.into()))?;
        replace(&self.path, &text).map_err(failed)
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // One that a crash has left may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

impl Entry {
    fn into_pair(self) -> (ImageName, Credential) {
        let credential = match self.form {
            Form::Password { username, password } => Credential::Password { username, password: Secret::new(password) },
            Form::IdentityToken { identity_token } => Credential::IdentityToken(Secret::new(identity_token)),
            Form::RegistryToken { registry_token } => Credential::RegistryToken(Secret::new(registry_token)),
        };
        (ImageName { registry: self.registry, repository: self.repository }, credential)
    }

    fn from_pair((name, credential): (ImageName, Credential)) -> Self {
        let form = match credential {
            Credential::Password { username, password } => Form::Password { username, password: password.reveal().to_owned() },
            Credential::IdentityToken(token) => Form::IdentityToken { identity_token: token.reveal().to_owned() },
            Credential::RegistryToken(token) => Form::RegistryToken { registry_token: token.reveal().to_owned() },
        };
        Self { registry: name.registry, repository: name.repository, form }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry() -> (ImageName, Credential) {
        let name = ImageName { registry: "r.example".to_owned(), repository: "a".to_owned() };
        (name, Credential::RegistryToken(Secret::new("secret")))
    }

    #[test]
    fn it_is_its_owners_alone_even_after_a_crash_left_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        for left in [&path, &dir.path().join("credentials.json.new")] {
            fs::write(left, "left").unwrap();
            fs::set_permissions(left, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let file = CredentialsFile::new(path.clone());
        file.write(|| vec![entry()]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert_eq!(file.read().unwrap(), [entry()]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_shows_none_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        let file = CredentialsFile::new(path.clone());
        for text in ["", "{", r#""secret""#, r#"{"version":"secret"}"#, r#"{"version":1,"credentials":[{"registry":"secret"}]}"#] {
            fs::write(&path, text).unwrap();
            let error = file.read().unwrap_err();
            assert!(matches!(error, CredentialsFileError::Json { .. }) && !format!("{error} {error:?}").contains("secret"), "{text}");
        }
        fs::write(&path, r#"{"version":2,"credentials":[]}"#).unwrap();
        assert!(matches!(file.read(), Err(CredentialsFileError::Version { version: 2, .. })));
        File::create(&path).unwrap().set_len(MAX_CRI_CREDENTIALS_FILE_BYTES + 1).unwrap();
        assert!(matches!(file.read(), Err(CredentialsFileError::TooLarge { .. })));
        fs::remove_file(&path).unwrap();
        assert_eq!(file.read().unwrap(), []);
    }
}
