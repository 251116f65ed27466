//! Labels and names: what clients may send, and what they mean to a layer.

use snap_digest::Digest;
use snap_fs::{Rung, WantedLayer};

use crate::error::Error;
use crate::limits::{MAX_LABEL_BYTES, MAX_LABELS, MAX_NAME_BYTES, MAX_OTHER_LAYERS};
use crate::record::Labels;

/// Asks whether a layer is here already; its value is the layer's chain ID. containerd's client library sets it.
pub(crate) const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// `<container ID>:<host ID>:<length>`, from clients that found the capability `remap-ids`.
pub(crate) const UID_MAPPING: &str = "containerd.io/snapshot/uidmapping";
/// The same for groups.
pub(crate) const GID_MAPPING: &str = "containerd.io/snapshot/gidmapping";

/// On the committed snapshot of a layer that is served: how the layer was opened when it was asked for. `local-index`: its index was here;
/// `estargz`: by its table of contents; `streaming-pass`: it was read once, whole.
///
/// containerd shows it to every client, as all labels that begin with `containerd.io/snapshot/`.
pub const OPENED_BY_LABEL: &str = "containerd.io/snapshot/snap.opened-by";
/// On the same snapshot: the digest of the blob whose layer it shows. Another blob of the same content may have been asked for later.
pub const LAYER_DIGEST_LABEL: &str = "containerd.io/snapshot/snap.layer-digest";
/// On the active snapshot that is made where a layer is not served: why it is not, for people. Gone when the snapshot is committed, with the
/// active snapshot's other labels.
pub const DECLINED_LABEL: &str = "containerd.io/snapshot/snap.declined";
/// What this snapshotter says itself. What clients say about them is not heard.
const OWN_LABELS: [&str; 3] = [OPENED_BY_LABEL, LAYER_DIGEST_LABEL, DECLINED_LABEL];

/// The image that a layer belongs to, as the client names it. This and the next three are those of the CRI plugin, docker and nerdctl.
pub(crate) const CRI_IMAGE_REF: &str = "containerd.io/snapshot/cri.image-ref";
/// Digest of the platform's manifest.
pub(crate) const CRI_MANIFEST_DIGEST: &str = "containerd.io/snapshot/cri.manifest-digest";
/// Digest of the layer's blob.
pub(crate) const CRI_LAYER_DIGEST: &str = "containerd.io/snapshot/cri.layer-digest";
/// Digests of the blobs of the layer and of those above it, as many as fit.
pub(crate) const CRI_IMAGE_LAYERS: &str = "containerd.io/snapshot/cri.image-layers";

/// How one family of clients says which image a layer belongs to.
struct Dialect {
    reference: &'static str,
    manifest: Option<&'static str>,
    layer: &'static str,
    layers: &'static str,
}

const DIALECTS: [Dialect; 2] = [
    Dialect { reference: CRI_IMAGE_REF, manifest: Some(CRI_MANIFEST_DIGEST), layer: CRI_LAYER_DIGEST, layers: CRI_IMAGE_LAYERS },
    // ctr-remote.
    Dialect {
        reference: "containerd.io/snapshot/remote/stargz.reference",
        manifest: None,
        layer: "containerd.io/snapshot/remote/stargz.digest",
        layers: "containerd.io/snapshot/remote/stargz.layers",
    },
];

/// Checks a name that snapshots are filed under: any text, since it never becomes the name of a file.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    match name.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        actual_bytes => Err(Error::BadName { what, actual_bytes }),
    }
}

/// Checks labels, and leaves out those that are this snapshotter's to give, and those without a value, as containerd's own snapshotters do.
pub(crate) fn check_labels(mut labels: Labels) -> Result<Labels, Error> {
    if labels.len() > MAX_LABELS {
        return Err(Error::TooManyLabels { count: labels.len() });
    }
    for (key, value) in &labels {
        let actual_bytes = key.len() + value.len();
        if actual_bytes > MAX_LABEL_BYTES {
            return Err(Error::LabelTooLong { key: clip(key), actual_bytes });
        }
    }
    labels.retain(|key, value| !value.is_empty() && !OWN_LABELS.contains(&key.as_str()));
    Ok(labels)
}

/// Says on a served layer's snapshot what it shows, and how that was opened.
pub(crate) fn say_served(labels: &mut Labels, layer: &Digest, rung: Rung) {
    labels.insert(OPENED_BY_LABEL.to_owned(), rung_name(rung).to_owned());
    labels.insert(LAYER_DIGEST_LABEL.to_owned(), layer.to_string());
}

/// How a served layer's snapshot says that the layer was opened, if it says so in a way that is known here.
pub(crate) fn opened_by(labels: &Labels) -> Option<Rung> {
    let said = labels.get(OPENED_BY_LABEL)?;
    [Rung::LocalIndex, Rung::Estargz, Rung::StreamingPass].into_iter().find(|rung| rung_name(*rung) == said)
}

fn rung_name(rung: Rung) -> &'static str {
    match rung {
        Rung::LocalIndex => "local-index",
        Rung::Estargz => "estargz",
        Rung::StreamingPass => "streaming-pass",
    }
}

/// Says on an ordinary snapshot why its layer is not served. A long reason is cut.
pub(crate) fn say_declined(labels: &mut Labels, reason: &str) {
    let end = reason.floor_char_boundary(MAX_LABEL_BYTES - DECLINED_LABEL.len());
    labels.insert(DECLINED_LABEL.to_owned(), reason[..end].to_owned());
}

/// Changes `labels` as an update asks: the fields that `paths` names become what `given` has for them; without paths, all do. This
/// snapshotter's own stay.
pub(crate) fn apply_update(labels: &mut Labels, given: &Labels, paths: &[String]) -> Result<(), Error> {
    let own: Labels = labels.extract_if(.., |key, _| OWN_LABELS.contains(&key.as_str())).collect();
    if paths.is_empty() {
        labels.clone_from(given);
    }
    for path in paths {
        if path == "labels" {
            labels.clone_from(given);
        } else if let Some(key) = path.strip_prefix("labels.") {
            match given.get(key) {
                Some(value) => labels.insert(key.to_owned(), value.clone()),
                None => labels.remove(key),
            };
        } else {
            return Err(Error::BadField { field: clip(path) });
        }
    }
    *labels = check_labels(std::mem::take(labels))?;
    labels.extend(own);
    Ok(())
}

/// The layer that `labels` ask for as `target`, or why it cannot be looked for.
pub(crate) fn wanted_layer(target: &str, labels: &Labels) -> Result<WantedLayer, String> {
    let chain_id: Digest = target.parse().map_err(|error| format!("{SNAPSHOT_REF} is not a chain ID: {error}"))?;
    let Some((dialect, reference)) = DIALECTS.iter().find_map(|dialect| Some((dialect, labels.get(dialect.reference)?))) else {
        return Err("the client does not say which image the layer belongs to".to_owned());
    };
    let digest = |label: &str| match labels.get(label) {
        None => Ok(None),
        Some(text) => text.parse::<Digest>().map(Some).map_err(|error| format!("{label} is not a digest: {error}")),
    };
    let layer = digest(dialect.layer)?;
    let manifest = dialect.manifest.map_or(Ok(None), digest)?;
    // The list is a hint: what cannot be read of it is left out.
    let listed = labels.get(dialect.layers).map_or("", String::as_str).split(',').filter_map(|text| text.trim().parse().ok());
    let others = listed.filter(|other| Some(*other) != layer).take(MAX_OTHER_LAYERS).collect();
    Ok(WantedLayer { chain_id, reference: reference.clone(), manifest, layer, others })
}

/// The beginning of a text from outside, short enough for a message.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    #[test]
    fn the_cri_labels_name_the_layer_its_image_and_those_above() {
        let list = format!("{},{},nonsense,{}", digest(1), digest(2), digest(3));
        let given = labels(&[
            ("containerd.io/snapshot/cri.image-ref", "127.0.0.1:5000/app:1"),
            ("containerd.io/snapshot/cri.manifest-digest", &digest(9).to_string()),
            ("containerd.io/snapshot/cri.layer-digest", &digest(1).to_string()),
            ("containerd.io/snapshot/cri.image-layers", &list),
        ]);
        let wanted = wanted_layer(&digest(7).to_string(), &given).unwrap();
        let expected = WantedLayer {
            chain_id: digest(7),
            reference: "127.0.0.1:5000/app:1".to_owned(),
            manifest: Some(digest(9)),
            layer: Some(digest(1)),
            others: vec![digest(2), digest(3)],
        };
        assert_eq!(wanted, expected);
    }

    #[test]
    fn the_labels_of_ctr_remote_are_understood() {
        let given = labels(&[
            ("containerd.io/snapshot/remote/stargz.reference", "registry.example/app@sha256:x"),
            ("containerd.io/snapshot/remote/stargz.digest", &digest(1).to_string()),
            ("containerd.io/snapshot/remote/stargz.layers", &format!("{},{}", digest(1), digest(2))),
        ]);
        let wanted = wanted_layer(&digest(7).to_string(), &given).unwrap();
        assert_eq!((wanted.layer, wanted.manifest, wanted.others), (Some(digest(1)), None, vec![digest(2)]));
    }

    #[test]
    fn a_layer_of_no_known_image_or_of_no_chain_is_not_looked_for() {
        assert!(wanted_layer(&digest(7).to_string(), &Labels::new()).unwrap_err().contains("which image"));
        assert!(wanted_layer("../../etc", &Labels::new()).unwrap_err().contains("not a chain ID"));
        let bad = labels(&[("containerd.io/snapshot/cri.image-ref", "a"), ("containerd.io/snapshot/cri.layer-digest", "md5:1")]);
        assert!(wanted_layer(&digest(7).to_string(), &bad).unwrap_err().contains("cri.layer-digest"));
    }

    #[test]
    fn an_update_touches_only_the_fields_it_names() {
        let before = labels(&[("keep", "1"), ("change", "1"), ("drop", "1")]);
        let mut after = before.clone();
        let given = labels(&[("change", "2"), ("ignored", "2")]);
        apply_update(&mut after, &given, &["labels.change".to_owned(), "labels.drop".to_owned(), "labels.a.b".to_owned()]).unwrap();
        assert_eq!(after, labels(&[("keep", "1"), ("change", "2")]));
        apply_update(&mut after, &given, &[]).unwrap();
        assert_eq!(after, given);
        assert!(matches!(apply_update(&mut after, &given, &["parent".to_owned()]), Err(Error::BadField { .. })));
    }

    #[test]
    fn what_the_snapshotter_says_of_a_snapshot_no_client_says_or_takes_back() {
        let mut kept = labels(&[("other", "1")]);
        say_served(&mut kept, &digest(1), Rung::Estargz);
        assert_eq!(opened_by(&kept), Some(Rung::Estargz));
        assert_eq!(opened_by(&labels(&[(OPENED_BY_LABEL, "magic")])), None);
        let given = labels(&[("other", "2"), (OPENED_BY_LABEL, "magic"), (DECLINED_LABEL, "never")]);
        let mut expected = check_labels(given.clone()).unwrap();
        assert_eq!(expected, labels(&[("other", "2")]));
        expected.insert(OPENED_BY_LABEL.to_owned(), "estargz".to_owned());
        expected.insert(LAYER_DIGEST_LABEL.to_owned(), digest(1).to_string());
        for paths in [vec![], vec!["labels".to_owned()], vec!["labels.other".to_owned(), format!("labels.{OPENED_BY_LABEL}")]] {
            let mut updated = kept.clone();
            apply_update(&mut updated, &given, &paths).unwrap();
            assert_eq!(updated, expected, "{paths:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_to_what_a_label_may_hold() {
        let mut said = Labels::new();
        say_declined(&mut said, &"é".repeat(MAX_LABEL_BYTES));
        let value = &said[DECLINED_LABEL];
        assert!((MAX_LABEL_BYTES - 1..=MAX_LABEL_BYTES).contains(&(DECLINED_LABEL.len() + value.len())));
        say_declined(&mut said, "short");
        assert_eq!(said[DECLINED_LABEL], "short");
    }

    #[test]
    fn labels_are_bounded_and_empty_ones_dropped() {
        let value = "v".repeat(MAX_LABEL_BYTES - 1);
        assert_eq!(check_labels(labels(&[("k", &value), ("empty", "")])).unwrap().len(), 1);
        assert!(matches!(check_labels(labels(&[("kk", &value)])), Err(Error::LabelTooLong { .. })));
        let many = (0..=MAX_LABELS).map(|n| (n.to_string(), "v".to_owned())).collect();
        assert!(matches!(check_labels(many), Err(Error::TooManyLabels { .. })));
    }
}
