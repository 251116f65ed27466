//! The writable view of `--rw`: overlayfs over the image, with the changes in a directory of the user's.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MsFlags, mount};

use crate::mount_table::Mount;

const TYPE: &str = "overlay";

fn upper_of(writable: &Path) -> PathBuf {
    writable.join("upper")
}

/// Makes the directories that the changes go to; those that are there keep their changes.
pub(crate) fn prepare(writable: &Path) -> anyhow::Result<PathBuf> {
    let make = || -> io::Result<PathBuf> {
        fs::create_dir_all(upper_of(writable))?;
        fs::create_dir_all(writable.join("work"))?;
        fs::canonicalize(writable)
    };
    make().with_context(|| format!("cannot use {} for changes", writable.display()))
}

/// Mounts the view at `dir`: the image, mounted at `lower`, under what is in `writable`.
pub(crate) fn mount_view(lower: &Path, writable: &Path, dir: &Path) -> anyhow::Result<()> {
    let options = options(lower, writable);
    mount(Some(TYPE), dir, Some(TYPE), MsFlags::empty(), Some(options.as_slice())).with_context(|| {
        format!(
            "cannot mount a writable view at {} with its changes in {}\nhint: the --rw directory must be on a local file system such as ext4 or xfs, not on overlayfs, FUSE or NFS",
            dir.display(),
            writable.display()
        )
    })
}

fn options(lower: &Path, writable: &Path) -> Vec<u8> {
    let mut options = b"lowerdir=".to_vec();
    escape(lower, b":", &mut options);
    options.extend_from_slice(b",upperdir=");
    escape(&upper_of(writable), b"", &mut options);
    options.extend_from_slice(b",workdir=");
    escape(&writable.join("work"), b"", &mut options);
    options
}

/// Commas separate options, colons lower directories; a backslash takes their meaning away.
fn escape(path: &Path, further: &[u8], into: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') || further.contains(byte) {
            into.push(b'\\');
        }
        into.push(*byte);
    }
}

/// Whether `mount` is the view whose changes go to `writable`.
pub(crate) fn is_view(mount: &Mount, writable: &Path) -> bool {
    let wanted = format!("upperdir={}", upper_of(writable).display());
    // A path may hold commas, so the options are not split.
    let is_whole = |at: usize| matches!(mount.options.as_bytes().get(at + wanted.len()), None | Some(b','));
    mount.kind == TYPE && mount.options.match_indices(&wanted).any(|(at, _)| is_whole(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        let options = options(Path::new("/a:b,c"), Path::new("/d:e\\f"));
        assert_eq!(options, b"lowerdir=/a\\:b\\,c,upperdir=/d:e\\\\f/upper,workdir=/d:e\\\\f/work");
    }

    #[test]
    fn a_view_is_known_by_its_changes() {
        let mount = |options: &str| Mount {
            device: "0:9".into(),
            point: "/mnt".into(),
            kind: "overlay".into(),
            source: "overlay".into(),
            options: options.into(),
        };
        assert!(is_view(&mount("ro,upperdir=/w,x/upper,workdir=/w,x/work"), Path::new("/w,x")));
        assert!(is_view(&mount("upperdir=/w/upper"), Path::new("/w")));
        assert!(!is_view(&mount("upperdir=/w/upper2"), Path::new("/w")));
        assert!(!is_view(&Mount { kind: "fuse.snap".into(), ..mount("upperdir=/w/upper") }, Path::new("/w")));
    }
}
