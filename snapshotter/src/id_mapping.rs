//! The labels by which a client asks for shifted owners.

use crate::directories::Owner;
use crate::error::Error;
use crate::labels::{GID_MAPPING, UID_MAPPING, clip};
use crate::record::Labels;

/// A snapshot's ID mapping, as its labels have it.
#[derive(Default)]
pub(crate) struct IdMapping {
    /// Mount options for containerd, which makes the mapped mounts itself.
    pub(crate) options: Vec<String>,
    /// Who root in the container is on the host.
    pub(crate) root: Option<Owner>,
}

impl IdMapping {
    /// Reads the mapping from a snapshot's labels; empty without them.
    pub(crate) fn of(labels: &Labels) -> Result<Self, Error> {
        let uid = host_id_of_root(labels, UID_MAPPING)?;
        let gid = host_id_of_root(labels, GID_MAPPING)?;
        let option = |name: &str, label: &str| labels.get(label).map(|value| format!("{name}={value}"));
        Ok(Self {
            options: option("uidmap", UID_MAPPING).into_iter().chain(option("gidmap", GID_MAPPING)).collect(),
            root: uid.zip(gid).map(|(uid, gid)| Owner { uid, gid }),
        })
    }

    /// Whether the labels ask for nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.options.is_empty()
    }
}

fn host_id_of_root(labels: &Labels, label: &'static str) -> Result<Option<u32>, Error> {
    let Some(value) = labels.get(label) else { return Ok(None) };
    let numbers: Option<Vec<u32>> = value.split(':').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([0, host, length]) if *length > 0 => Ok(Some(*host)),
        _ => Err(Error::BadIdMapping { label, value: clip(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(uid: &str, gid: &str) -> Labels {
        [(UID_MAPPING, uid), (GID_MAPPING, gid)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn a_mapping_gives_options_and_the_owner_of_the_root() {
        let mapping = IdMapping::of(&labels("0:1000:65536", "0:2000:65536")).unwrap();
        assert_eq!(mapping.options, ["uidmap=0:1000:65536", "gidmap=0:2000:65536"]);
        assert_eq!(mapping.root, Some(Owner { uid: 1000, gid: 2000 }));
        assert!(IdMapping::of(&Labels::new()).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_mapping_of_root_is_refused() {
        for bad in ["", "0", "0:1", "0:1:0", "1:1000:1", "0:a:1", "0:1:1:1", "0:1:1,1:2:1", "0:-1:1"] {
            assert!(IdMapping::of(&labels(bad, "0:0:1")).is_err(), "{bad:?}");
        }
    }
}
