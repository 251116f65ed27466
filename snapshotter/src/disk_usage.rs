//! What a directory takes on disk, as containerd counts it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::layers::LayerUsage;

/// The unit of `st_blocks`, whatever the file system's own block size is.
const BLOCK_BYTES: u64 = 512;

/// Allocated bytes and inodes of everything below `root` and of itself; a file with several names counts once. Files that vanish
/// meanwhile are not counted.
pub(crate) fn measure(root: &Path) -> Result<LayerUsage, Error> {
    let mut seen = HashSet::new();
    let mut usage = LayerUsage::default();
    let mut left: Vec<PathBuf> = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let Some(metadata) = unless_gone(fs::symlink_metadata(&path)).map_err(Error::io("look at", &path))? else { continue };
        if seen.insert((metadata.dev(), metadata.ino())) {
            usage.inodes += 1;
            usage.size_bytes += metadata.blocks() * BLOCK_BYTES;
        }
        if metadata.is_dir() {
            let Some(entries) = unless_gone(fs::read_dir(&path)).map_err(Error::io("list", &path))? else { continue };
            for entry in entries {
                left.push(entry.map_err(Error::io("list", &path))?.path());
            }
        }
    }
    Ok(usage)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_holes_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        let before = measure(dir.path()).unwrap();
        assert_eq!(before.inodes, 3);
        assert!(before.size_bytes >= 100_000);
        fs::hard_link(dir.path().join("a"), dir.path().join("sub/b")).unwrap();
        assert_eq!(measure(dir.path()).unwrap(), before);
        fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let after = measure(dir.path()).unwrap();
        assert_eq!(after.inodes, 4);
        assert!(after.size_bytes < before.size_bytes + (1 << 20));
    }

    #[test]
    fn a_directory_that_is_gone_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(measure(&dir.path().join("none")).unwrap(), LayerUsage::default());
    }
}
