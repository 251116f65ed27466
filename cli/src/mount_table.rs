//! What is mounted where, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits;

const TABLE: &str = "/proc/self/mountinfo";
/// The type that the kernel shows for a mount of ours.
pub(crate) const SNAP_TYPE: &str = "fuse.snap";

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    /// `major:minor` of the file system, which no other has while it exists.
    pub(crate) device: String,
    /// The mount point.
    pub(crate) point: PathBuf,
    /// The file system's type: `fuse.snap`, `overlay`.
    pub(crate) kind: String,
    /// What was mounted: of ours, the image.
    pub(crate) source: String,
    /// The file system's own options.
    pub(crate) options: String,
}

/// All mounts of this mount namespace, in the order they were made.
pub(crate) struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// Reads the table as it is now.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let read = || -> io::Result<Self> {
            let mut text = Vec::new();
            File::open(TABLE)?.take(limits::MOUNT_TABLE_BYTES_MAX).read_to_end(&mut text)?;
            Ok(Self::parse(&text))
        };
        read().with_context(|| format!("cannot read {TABLE}\nhint: mount procfs on /proc"))
    }

    fn parse(text: &[u8]) -> Self {
        Self { mounts: text.split(|byte| *byte == b'\n').filter_map(parse_line).collect() }
    }

    /// What one sees at `dir`, a canonical path, if that is a mount point: the topmost mount.
    pub(crate) fn at(&self, dir: &Path) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.point == dir)
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
    let point = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let mut text = || fields.next().map(|field| String::from_utf8_lossy(&unescape(field)).into_owned());
    Some(Mount { device, point: OsString::from_vec(point).into(), kind: text()?, source: text()?, options: text()? })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(value.unwrap_or(first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    plain
}

/// The canonical path of a mount point, found without asking the file system that is mounted there: its daemon may be gone or stuck.
pub(crate) fn canonical(dir: &Path) -> io::Result<PathBuf> {
    if let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let joined = fs::canonicalize(parent)?.join(name);
        if MountTable::read().is_ok_and(|table| table.at(&joined).is_some()) {
            return Ok(joined);
        }
    }
    fs::canonicalize(dir)
}

/// Tells when the table changes.
pub(crate) struct MountWatch {
    table: AsyncFd<File>,
}

impl MountWatch {
    /// Watches from now on. Must be called within a tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let table = File::open(TABLE)?;
        // The kernel announces a change as priority data.
        // SAFETY: a File keeps its descriptor open, and the same, for as long as it lives; AsyncFd owns it.
        let table = unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) }?;
        Ok(Self { table })
    }

    /// Returns once `gone` holds for the table.
    pub(crate) async fn until(&self, gone: impl Fn(&MountTable) -> bool) -> anyhow::Result<()> {
        loop {
            if gone(&MountTable::read()?) {
                return Ok(());
            }
            self.table.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let text = b"36 35 98:0 / /mnt/a\\040b rw,noatime master:1 shared:2 - fuse.snap localhost/x:1 ro,user_id=0\n\
                     37 36 0:9 / /mnt/a\\040b rw - overlay overlay rw,upperdir=/u\n\
                     nonsense\n\
                     38 35 0:10 / /odd\\9 rw - tmpfs none rw\n";
        let table = MountTable::parse(text);
        assert_eq!(table.mounts.len(), 3);
        let top = table.at(Path::new("/mnt/a b")).unwrap();
        assert_eq!((top.kind.as_str(), top.source.as_str(), top.options.as_str()), ("overlay", "overlay", "rw,upperdir=/u"));
        assert_eq!((table.mounts[0].kind.as_str(), table.mounts[0].device.as_str()), (SNAP_TYPE, "98:0"));
        assert!(table.at(Path::new("/odd\\9")).is_some());
        assert!(table.at(Path::new("/mnt")).is_none());
    }

    #[test]
    fn the_own_table_has_a_root() {
        assert!(MountTable::read().unwrap().at(Path::new("/")).is_some());
    }
}
