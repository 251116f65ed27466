//! The version file: that a directory is a cache, and that this program can read it.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::Error;
use crate::limits::MAX_VERSION_BYTES;
use crate::staging::sync_directory;

/// The version this program writes, and the newest it reads.
const VERSION: u32 = 1;
const PREFIX: &str = "snap-cache ";
const FILE: &str = "version";
/// The version file before it is whole; left by a process killed in between.
const NEW_FILE: &str = "version.new";
/// What a fresh file system may hold at its root.
const LOST_AND_FOUND: &str = "lost+found";

/// Makes `dir` a cache if it is missing or empty, and checks that it is one that can be written.
pub(crate) fn claim(dir: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| not_writable_or("create", dir, error))?;
    // Two processes may open a new cache at once; the lock is released when the handle goes.
    let handle = File::open(dir).map_err(|error| not_writable_or("open", dir, error))?;
    handle.lock().map_err(|error| Error::io("lock", dir, error))?;
    match read(dir)? {
        Some(found) if found > VERSION => return Err(Error::NewerVersion { path: dir.to_owned(), found, supported: VERSION }),
        Some(_) => {}
        None if is_empty(dir)? => write(dir)?,
        None => return Err(Error::NotACache { path: dir.to_owned() }),
    }
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| not_writable_or("write to", dir, errno.into()))
}

fn read(dir: &Path) -> Result<Option<u32>, Error> {
    let path = dir.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_VERSION_BYTES).read_to_end(&mut bytes).map_err(|error| Error::io("read", &path, error))?;
    let version = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_prefix(PREFIX)?.strip_suffix('\n')?.parse().ok());
    match version {
        Some(version) if version > 0 => Ok(Some(version)),
        _ => Err(Error::BadVersionFile { path }),
    }
}

fn write(dir: &Path) -> Result<(), Error> {
    let (path, new) = (dir.join(FILE), dir.join(NEW_FILE));
    let written = File::create(&new).and_then(|mut file| {
        writeln!(file, "{PREFIX}{VERSION}")?;
        file.sync_all()
    });
    written.map_err(|error| not_writable_or("write", &new, error))?;
    fs::rename(&new, &path).map_err(|error| Error::io("rename to", &path, error))?;
    sync_directory(dir)
}

fn is_empty(dir: &Path) -> Result<bool, Error> {
    for entry in fs::read_dir(dir).map_err(|error| Error::io("list", dir, error))? {
        let name = entry.map_err(|error| Error::io("list", dir, error))?.file_name();
        if name != NEW_FILE && name != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

fn not_writable_or(action: &'static str, path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotWritable { path: path.to_owned(), source },
        _ => Error::io(action, path, source),
    }
}
