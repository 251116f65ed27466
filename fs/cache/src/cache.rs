//! The cache directory, opened.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::geteuid;
use snap_digest::Digest;

use crate::boot::BootId;
use crate::layout::Layout;
use crate::lease::Lease;
use crate::{Error, documents, version};

const ROOT_DIR: &str = "/var/lib/snap";

/// How a cache is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheOptions {
    /// What [`Cache::enforce_budget`] cuts the cache down to, in bytes on disk; no limit without it.
    pub budget_bytes: Option<u64>,
}

/// An open cache directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) options: CacheOptions,
    pub(crate) boot: BootId,
}

impl Cache {
    /// Opens the cache in `dir`; a missing or empty directory becomes one.
    ///
    /// # Errors
    /// [`Error::NotACache`], [`Error::NewerVersion`] or [`Error::BadVersionFile`] if something else is there,
    /// [`Error::NotWritable`] if it cannot be written, [`Error::BootId`] without a procfs.
    pub fn open(dir: &Path, options: CacheOptions) -> Result<Self, Error> {
        Self::open_in_boot(dir, options, BootId::current()?)
    }

    /// As [`Self::open`], for a caller that knows the boot ID: where no procfs is mounted, and to see what a reboot does.
    /// All processes that use a cache at the same time must give the same one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in_boot(dir: &Path, options: CacheOptions, boot: BootId) -> Result<Self, Error> {
        version::claim(dir)?;
        let layout = Layout::new(dir);
        for path in layout.directories() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| Error::io("create", path, error))?;
        }
        Ok(Self { inner: Arc::new(Inner { layout, options, boot }) })
    }

    /// Where the cache of this user is unless told otherwise: `/var/lib/snap` for root, else `snap` in `$XDG_CACHE_HOME` or
    /// `~/.cache`.
    pub fn default_dir() -> PathBuf {
        default_dir_of(geteuid().is_root(), std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from), std::env::home_dir())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.inner.layout.root()
    }

    /// Keeps `layer` from being evicted until the lease and everything opened through it is dropped, and notes the use.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`], or [`Error::Contended`] if other processes evict the layer over and over.
    pub fn lease(&self, layer: &Digest) -> Result<Lease, Error> {
        Lease::take(Arc::clone(&self.inner), *layer)
    }

    /// The document with this digest. One that does not have its digest any more is removed and counts as absent, as does
    /// one that cannot be read; both are logged.
    pub fn document(&self, digest: &Digest) -> Option<Vec<u8>> {
        documents::get(&self.inner.layout, digest)
    }

    /// Stores a document durably.
    ///
    /// # Errors
    /// [`Error::DocumentMismatch`] if the bytes have another digest, [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Io`].
    pub fn put_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        documents::put(&self.inner.layout, digest, bytes)
    }

    /// What `reference` was last set to: a descriptor, as the JSON text that was given.
    pub fn reference(&self, reference: &str) -> Option<String> {
        documents::reference(&self.inner.layout, reference)
    }

    /// Remembers durably what `reference` names. `descriptor_json` is opaque here.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Io`].
    pub fn set_reference(&self, reference: &str, descriptor_json: &str) -> Result<(), Error> {
        documents::set_reference(&self.inner.layout, reference, descriptor_json)
    }
}

fn default_dir_of(is_root: bool, cache_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    if is_root {
        return ROOT_DIR.into();
    }
    // The XDG specification has relative paths ignored.
    let given = cache_home.filter(|path| path.is_absolute());
    given.unwrap_or_else(|| home.unwrap_or_else(|| "/".into()).join(".cache")).join("snap")
}

/// Reads the entries of `dir`; a directory that is gone has none.
pub(crate) fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed.collect::<Result<Vec<_>, _>>(),
        Err(error) => Err(error),
    };
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| Error::io("list", dir, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_directory_follows_the_user() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(default_dir_of(true, path("/xdg"), path("/root")), Path::new("/var/lib/snap"));
        assert_eq!(default_dir_of(false, path("/xdg"), path("/home/u")), Path::new("/xdg/snap"));
        assert_eq!(default_dir_of(false, path("xdg"), path("/home/u")), Path::new("/home/u/.cache/snap"));
        assert_eq!(default_dir_of(false, path(""), path("/home/u")), Path::new("/home/u/.cache/snap"));
        assert_eq!(default_dir_of(false, None, None), Path::new("/.cache/snap"));
    }
}
