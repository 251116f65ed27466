//! Making room: eviction of what was used least recently, and the leftovers of killed processes.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use snap_digest::Digest;

use crate::Error;
use crate::cache::{Cache, entries};
use crate::layout::{LayerPaths, layer_of};
use crate::lease::exists;
use crate::limits::MAX_RACE_ATTEMPTS;
use crate::lock::{self, Acquired, Mode};
use crate::staging::{remove_if_present, unique_name};
use crate::usage::{LayerUsage, bytes_below, bytes_of};

/// What a removal freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Bytes on disk.
    pub freed_bytes: u64,
}

/// What a prune did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Bytes on disk that were freed.
    pub freed_bytes: u64,
    /// Layers whose data was evicted, and which kept their index.
    pub data_evicted: u32,
    /// Layers that were evicted as a whole.
    pub layers_evicted: u32,
    /// Files and layers that killed processes had left.
    pub leftovers_removed: u32,
    /// What the cache still takes, in bytes on disk; more than asked for if layers are in use.
    pub remaining_bytes: u64,
}

impl Cache {
    /// Removes a layer with everything that is known of it.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NotCached`], [`Error::Io`].
    pub fn remove(&self, layer: &Digest) -> Result<Removed, Error> {
        let paths = self.inner.layout.layer(layer);
        if !exists(paths.dir())? {
            return Err(Error::NotCached { layer: *layer });
        }
        match lock::acquire(&paths.lock(), Mode::TryExclusive)? {
            Acquired::Held(lock) => Ok(Removed { freed_bytes: self.evict(&paths, lock)? }),
            Acquired::Busy => Err(Error::InUse { layer: *layer }),
            Acquired::Gone => Err(Error::NotCached { layer: *layer }),
        }
    }

    /// Removes what a build that failed left of a layer: all of it, if it has no index and nobody uses it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_unbuilt(&self, layer: &Digest) -> Result<(), Error> {
        self.sweep_layer(&self.inner.layout.layer(layer), &mut Pruned::default())
    }

    /// Removes the leftovers of killed processes, then evicts layers that are not in use, least recently used first, until the
    /// cache takes at most `keep_bytes` on disk: first the data of as many as it takes, and only if that is not enough, whole
    /// layers. Documents and references stay: they are small, and with them an image opens without a registry.
    ///
    /// # Errors
    /// [`Error::Io`]. Layers in use are no error.
    pub fn prune(&self, keep_bytes: u64) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        self.sweep(&mut pruned)?;
        pruned.remaining_bytes = self.usage_bytes()?;
        if pruned.remaining_bytes <= keep_bytes {
            return Ok(pruned);
        }
        let mut layers: Vec<LayerUsage> = self.layers()?.into_iter().filter(|layer| !layer.in_use).collect();
        layers.sort_by_key(|layer| (layer.last_used, layer.digest));
        for whole in [false, true] {
            for layer in &layers {
                if pruned.remaining_bytes <= keep_bytes {
                    return Ok(pruned);
                }
                self.evict_unless_used(&layer.digest, whole, &mut pruned)?;
            }
        }
        Ok(pruned)
    }

    /// Prunes to the budget of [`crate::CacheOptions`]; without one, only the leftovers of killed processes.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn enforce_budget(&self) -> Result<Pruned, Error> {
        self.prune(self.inner.options.budget_bytes.unwrap_or(u64::MAX))
    }

    fn evict_unless_used(&self, layer: &Digest, whole: bool, pruned: &mut Pruned) -> Result<(), Error> {
        let paths = self.inner.layout.layer(layer);
        let Acquired::Held(lock) = lock::acquire(&paths.lock(), Mode::TryExclusive)? else { return Ok(()) };
        let freed_bytes = if whole {
            pruned.layers_evicted += 1;
            self.evict(&paths, lock)?
        } else if exists(&paths.data())? {
            pruned.data_evicted += 1;
            remove_files(&paths)?
        } else {
            0
        };
        pruned.freed_bytes += freed_bytes;
        pruned.remaining_bytes = pruned.remaining_bytes.saturating_sub(freed_bytes);
        Ok(())
    }

    /// Takes a layer's directory away, under its exclusive `lock`, and deletes it. Returns what that freed, in bytes.
    fn evict(&self, paths: &LayerPaths, lock: File) -> Result<u64, Error> {
        let freed_bytes = bytes_below(paths.dir())?;
        for _ in 0..MAX_RACE_ATTEMPTS {
            let removed = self.inner.layout.removed().join(unique_name());
            match fs::rename(paths.dir(), &removed) {
                Ok(()) => {
                    // Who waits for the lock is to start over, and need not wait for the deletion.
                    drop(lock);
                    return delete(&removed).map(|()| freed_bytes);
                }
                // A killed process of the same number left it, or one in another PID namespace is at it.
                Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
                Err(error) => return Err(Error::io("rename", paths.dir(), error)),
            }
        }
        Err(Error::Contended { path: self.inner.layout.removed() })
    }

    /// Removes what killed processes left.
    fn sweep(&self, pruned: &mut Pruned) -> Result<(), Error> {
        for entry in entries(&self.inner.layout.staging())? {
            let path = entry.path();
            if let Acquired::Held(_lock) = lock::acquire_existing(&path, Mode::TryExclusive)? {
                pruned.freed_bytes += bytes_of(&path)?;
                pruned.leftovers_removed += 1;
                remove_if_present(&path)?;
            }
        }
        for entry in entries(&self.inner.layout.removed())? {
            pruned.freed_bytes += bytes_below(&entry.path())?;
            pruned.leftovers_removed += 1;
            delete(&entry.path())?;
        }
        for entry in entries(&self.inner.layout.layers())? {
            if let Some(layer) = layer_of(&entry.file_name()) {
                self.sweep_layer(&self.inner.layout.layer(&layer), pruned)?;
            }
        }
        Ok(())
    }

    /// Removes a layer without an index that nobody uses; and where somebody does but nobody builds, its data.
    fn sweep_layer(&self, paths: &LayerPaths, pruned: &mut Pruned) -> Result<(), Error> {
        if exists(&paths.index())? {
            return Ok(());
        }
        match lock::acquire(&paths.lock(), Mode::TryExclusive)? {
            Acquired::Held(lock) => {
                if !exists(&paths.index())? {
                    pruned.freed_bytes += self.evict(paths, lock)?;
                    pruned.leftovers_removed += 1;
                }
            }
            Acquired::Busy => {
                let Acquired::Held(_change) = lock::acquire(&paths.build(), Mode::TryExclusive)? else { return Ok(()) };
                if !exists(&paths.index())? && (exists(&paths.data())? || exists(&paths.present())?) {
                    pruned.freed_bytes += remove_files(paths)?;
                    pruned.leftovers_removed += 1;
                }
            }
            Acquired::Gone => {}
        }
        Ok(())
    }
}

/// Unlinks data and map, the map first. Returns what that freed, in bytes.
fn remove_files(paths: &LayerPaths) -> Result<u64, Error> {
    let freed_bytes = bytes_of(&paths.data())? + bytes_of(&paths.present())?;
    remove_if_present(&paths.present())?;
    remove_if_present(&paths.data())?;
    Ok(freed_bytes)
}

/// Deletes a directory that has no name in the cache any more. Another process may be at it too, or may just have made a lock
/// file in it that it is about to find stale; the next prune deletes what is left then.
fn delete(removed: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(removed) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(Error::io("remove", removed, error))
        }
        _ => Ok(()),
    }
}
