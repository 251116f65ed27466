//! From a snapshot and its ancestors to what containerd mounts.
//!
//! The answers are those of containerd's overlayfs snapshotter, but for one thing: consecutive layers that are served are one
//! lower directory.

use std::path::{Path, PathBuf};

use snap_fs::Below;

use crate::error::Error;
use crate::layers::Run;
use crate::record::{Kind, Record};

/// One mount, as mount(8) would be told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    /// The file system's type, or `bind`.
    pub(crate) kind: &'static str,
    pub(crate) source: String,
    /// Each without a comma.
    pub(crate) options: Vec<String>,
}

/// A lower directory before it has a path.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Lower {
    /// A committed ordinary snapshot, by ID.
    Ordinary(u64),
    /// Layers that are served as one tree.
    Run(Run),
}

/// The lower directories that `ancestors` (the parent first) come to, the highest first.
pub(crate) fn lowers(ancestors: &[Record]) -> Vec<Lower> {
    let mut lowers: Vec<Lower> = Vec::new();
    // From the bottom up: what is below a run is known when it begins.
    for record in ancestors.iter().rev() {
        let below = if lowers.is_empty() { Below::Nothing } else { Below::Layers };
        match (&record.remote, lowers.last_mut()) {
            (None, _) => lowers.push(Lower::Ordinary(record.id)),
            (Some(layer), Some(Lower::Run(run))) => run.layers.push(layer.clone()),
            (Some(layer), _) => lowers.push(Lower::Run(Run { layers: vec![layer.clone()], below })),
        }
    }
    lowers.reverse();
    lowers
}

/// The directories that a mount is made of.
pub(crate) struct Parts {
    pub(crate) kind: Kind,
    /// The snapshot's own.
    pub(crate) content: PathBuf,
    pub(crate) work: PathBuf,
    /// Its ancestors', the highest first.
    pub(crate) lowers: Vec<PathBuf>,
    /// Options of an ID mapping.
    pub(crate) mapping: Vec<String>,
}

/// What containerd mounts for a snapshot made of `parts`.
pub(crate) fn mounts(parts: Parts, overlay: &OverlayOptions) -> Result<Vec<Mount>, Error> {
    let Parts { kind, content, work, lowers, mapping: mut options } = parts;
    let read_only = kind != Kind::Active;
    let bound = match lowers.as_slice() {
        // An overlay needs a lower directory, and more than one if it has no upper one.
        [] => Some(&content),
        [only] if read_only => Some(only),
        _ => None,
    };
    if let Some(source) = bound {
        options.extend([if read_only { "ro" } else { "rw" }.to_owned(), "rbind".to_owned()]);
        return Ok(vec![Mount { kind: "bind", source: text(source)?.to_owned(), options }]);
    }
    options.extend(overlay.0.iter().map(|option| (*option).to_owned()));
    if !read_only {
        options.push(format!("workdir={}", text(&work)?));
        options.push(format!("upperdir={}", text(&content)?));
    }
    let lowers = lowers.iter().map(|lower| text(lower)).collect::<Result<Vec<_>, _>>()?;
    options.push(format!("lowerdir={}", lowers.join(":")));
    Ok(vec![Mount { kind: "overlay", source: "overlay".to_owned(), options }])
}

/// The path as a mount option holds it.
fn text(path: &Path) -> Result<&str, Error> {
    match path.to_str() {
        Some(text) if !text.contains([':', ',', '\\']) => Ok(text),
        _ => Err(Error::AwkwardPath { path: path.to_path_buf() }),
    }
}

/// The options that every overlay mount gets on this machine.
#[derive(Default)]
pub(crate) struct OverlayOptions(Vec<&'static str>);

impl OverlayOptions {
    /// Looks at the kernel.
    pub(crate) fn detect() -> Self {
        let mut options = Vec::new();
        // Lower directories are shared between mounts, which an index would refuse.
        if Path::new("/sys/module/overlay/parameters/index").exists() {
            options.push("index=off");
        }
        if in_user_namespace() {
            options.push("userxattr");
        }
        Self(options)
    }
}

/// Whether this process's user namespace is not the initial one, in which all IDs map to themselves.
fn in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use snap_digest::Digest;
    use snap_fs::RemoteLayer;

    use super::*;
    use crate::layers::LayerUsage;

    fn layer(byte: u8) -> RemoteLayer {
        let digest = Digest::from_bytes([byte; 32]);
        RemoteLayer { digest, size_bytes: 1, media_type: "m".to_owned(), diff_id: digest, reference: "r".to_owned(), toc_digest: None }
    }

    fn record(id: u8, remote: bool) -> Record {
        Record {
            id: id.into(),
            kind: Kind::Committed,
            parent: String::new(),
            labels: Default::default(),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
            usage: LayerUsage::default(),
            remote: remote.then(|| layer(id)),
        }
    }

    fn run(layers: &[u8], below: Below) -> Lower {
        Lower::Run(Run { layers: layers.iter().map(|byte| layer(*byte)).collect(), below })
    }

    #[test]
    fn consecutive_layers_are_one_run_and_know_what_is_below() {
        let stack = [record(6, true), record(5, true), record(4, false), record(3, false), record(2, true), record(1, true)];
        let expected = [run(&[5, 6], Below::Layers), Lower::Ordinary(4), Lower::Ordinary(3), run(&[1, 2], Below::Nothing)];
        assert_eq!(lowers(&stack), expected);
        assert_eq!(lowers(&stack[2..4]), [Lower::Ordinary(4), Lower::Ordinary(3)]);
        assert_eq!(lowers(&[record(2, true), record(1, false)]), [run(&[2], Below::Layers), Lower::Ordinary(1)]);
        assert_eq!(lowers(&[]), []);
    }

    fn mount(kind: Kind, lowers: &[&str]) -> Mount {
        let parts = Parts {
            kind,
            content: "/s/9/fs".into(),
            work: "/s/9/work".into(),
            lowers: lowers.iter().map(PathBuf::from).collect(),
            mapping: Vec::new(),
        };
        mounts(parts, &OverlayOptions(vec!["index=off"])).unwrap().remove(0)
    }

    fn expected(kind: &'static str, source: &str, options: &[&str]) -> Mount {
        Mount { kind, source: source.to_owned(), options: options.iter().map(|option| (*option).to_owned()).collect() }
    }

    #[test]
    fn the_mounts_are_those_of_containerds_overlayfs() {
        assert_eq!(mount(Kind::Active, &[]), expected("bind", "/s/9/fs", &["rw", "rbind"]));
        assert_eq!(mount(Kind::View, &[]), expected("bind", "/s/9/fs", &["ro", "rbind"]));
        assert_eq!(mount(Kind::View, &["/a"]), expected("bind", "/a", &["ro", "rbind"]));
        assert_eq!(mount(Kind::View, &["/b", "/a"]), expected("overlay", "overlay", &["index=off", "lowerdir=/b:/a"]));
        let options = ["index=off", "workdir=/s/9/work", "upperdir=/s/9/fs", "lowerdir=/b:/a"];
        assert_eq!(mount(Kind::Active, &["/b", "/a"]), expected("overlay", "overlay", &options));
    }

    #[test]
    fn a_path_that_reads_as_two_options_is_refused() {
        let parts = Parts { kind: Kind::View, content: "/s".into(), work: "/w".into(), lowers: vec!["/a:b".into()], mapping: Vec::new() };
        assert!(matches!(mounts(parts, &OverlayOptions::default()), Err(Error::AwkwardPath { .. })));
    }
}
