//! The labels that a pull leaves: for containerd's garbage collector, and for the snapshotter.

use snap_digest::Digest;
use snap_registry::{Descriptor, ImageManifest, RegistryReference, is_index};

use crate::labels::{CRI_IMAGE_LAYERS, CRI_IMAGE_REF, CRI_LAYER_DIGEST, CRI_MANIFEST_DIGEST, SNAPSHOT_REF};
use crate::limits::MAX_LABEL_BYTES;
use crate::record::Labels;

/// What containerd keeps for content: the diff ID of a layer's blob.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Where content came from, by host without port, as containerd's own clients have it: the repositories. Lets a push mount it from there.
const DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source.";
const GC_CONTENT: &str = "containerd.io/gc.ref.content";
const GC_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
/// Of a layer's annotations, containerd hands these on to the snapshotter.
const SNAPSHOT_PREFIX: &str = "containerd.io/snapshot/";

/// Says where content came from, besides where it is known to have come from before.
pub(crate) fn source(reference: &RegistryReference, known: Option<Labels>) -> Labels {
    let key = format!("{DISTRIBUTION_SOURCE}{}", without_port(reference.host()));
    let repository = reference.repository();
    let before = known.and_then(|mut labels| labels.remove(&key)).unwrap_or_default();
    let all = match before.as_str() {
        "" => repository.to_owned(),
        before if before.split(',').any(|known| known == repository) => before.to_owned(),
        before => format!("{before},{repository}"),
    };
    // A label that is too long is refused; the newest place is the likeliest to be there.
    let value = if key.len() + all.len() > MAX_LABEL_BYTES { repository.to_owned() } else { all };
    Labels::from([(key, value)])
}

/// An address of IPv6 is without its brackets then.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// What keeps an index's manifests and the indexes in it, by the names that containerd's own clients use.
pub(crate) fn of_index(manifests: &[Descriptor]) -> Labels {
    let (indexes, manifests) = manifests.iter().partition::<Vec<_>, _>(|child| is_index(&child.media_type));
    let named = |kind: &'static str, children: Vec<&Descriptor>| {
        let name = move |(n, child): (usize, &Descriptor)| (format!("{GC_CONTENT}{kind}.{n}"), child.digest.to_string());
        children.into_iter().enumerate().map(name).collect::<Labels>()
    };
    let mut labels = named(".m", manifests);
    labels.extend(named("", indexes));
    labels
}

/// What keeps a manifest's configuration and layers. Layers need not be there.
pub(crate) fn of_manifest(manifest: &ImageManifest) -> Labels {
    let mut labels = Labels::from([(format!("{GC_CONTENT}.config"), manifest.config.digest.to_string())]);
    labels.extend(manifest.layers.iter().enumerate().map(|(n, layer)| (format!("{GC_CONTENT}.l.{n}"), layer.digest.to_string())));
    labels
}

/// What keeps the snapshots of an image: on its configuration.
pub(crate) fn of_config(snapshotter: &str, top: Option<&Digest>) -> Labels {
    top.map(|chain_id| (format!("{GC_SNAPSHOT}.{snapshotter}"), chain_id.to_string())).into_iter().collect()
}

/// What a snapshotter is told of the layer at `place`, so that it can serve it without being given it.
pub(crate) fn of_layer(image_name: &str, manifest: &ImageManifest, place: usize, chain_id: &Digest) -> Labels {
    let layer = &manifest.layers[place];
    let mut labels: Labels = layer.annotations.clone().into_iter().filter(|(key, _)| key.starts_with(SNAPSHOT_PREFIX)).collect();
    labels.extend([
        (SNAPSHOT_REF.to_owned(), chain_id.to_string()),
        (CRI_IMAGE_REF.to_owned(), image_name.to_owned()),
        (CRI_MANIFEST_DIGEST.to_owned(), manifest.descriptor.digest.to_string()),
        (CRI_LAYER_DIGEST.to_owned(), layer.digest.to_string()),
        (CRI_IMAGE_LAYERS.to_owned(), layers_from(&manifest.layers[place..])),
    ]);
    // containerd refuses a whole snapshot for one label that is too long.
    labels.retain(|key, value| key.len() + value.len() <= MAX_LABEL_BYTES);
    labels
}

/// As many digests as one label takes, the lowest first.
fn layers_from(layers: &[Descriptor]) -> String {
    let mut list = String::new();
    for layer in layers {
        let digest = layer.digest.to_string();
        if CRI_IMAGE_LAYERS.len() + list.len() + 1 + digest.len() > MAX_LABEL_BYTES {
            break;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list += &digest;
    }
    list
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::labels::wanted_layer;

    fn manifest(layers: usize) -> ImageManifest {
        let blob = |n: usize| Descriptor::new(Digest::of(n.to_string().as_bytes()), 1, "application/vnd.oci.image.layer.v1.tar+gzip");
        ImageManifest {
            descriptor: blob(1000),
            config: blob(1001),
            layers: (0..layers).map(blob).collect(),
            annotations: BTreeMap::new(),
            subject: None,
        }
    }

    #[test]
    fn the_snapshotter_understands_what_it_is_told() {
        let mut manifest = manifest(200);
        manifest.layers[3].annotations.insert("containerd.io/snapshot/stargz/toc.digest".to_owned(), "sha256:1".to_owned());
        manifest.layers[3].annotations.insert("org.example".to_owned(), "not for it".to_owned());
        let chain_id = Digest::of(b"chain");
        let labels = of_layer("docker.io/library/a:1", &manifest, 3, &chain_id);
        let wanted = wanted_layer(&chain_id.to_string(), &labels).unwrap();
        assert_eq!(wanted.reference, "docker.io/library/a:1");
        assert_eq!((wanted.manifest, wanted.layer), (Some(manifest.descriptor.digest), Some(manifest.layers[3].digest)));
        // 4,096 bytes hold 56 digests of 71 bytes and a comma beside the key; the first is the layer itself.
        assert_eq!(wanted.others.len(), 55);
        assert_eq!(wanted.others[0], manifest.layers[4].digest);
        assert!(labels.contains_key("containerd.io/snapshot/stargz/toc.digest") && !labels.contains_key("org.example"));
    }

    #[test]
    fn content_may_come_from_several_repositories() {
        let reference = |text: &str| match text.parse().unwrap() {
            snap_registry::Reference::Registry(reference) => reference,
            snap_registry::Reference::Layout(_) => unreachable!(),
        };
        let first = source(&reference("r.example/a"), None);
        assert_eq!(first["containerd.io/distribution.source.r.example"], "a");
        let second = source(&reference("r.example/b"), Some(first.clone()));
        assert_eq!(second["containerd.io/distribution.source.r.example"], "a,b");
        assert_eq!(source(&reference("r.example/a"), Some(second.clone())), second);
        assert_eq!(source(&reference("other.example/a"), Some(second))["containerd.io/distribution.source.other.example"], "a");
        for (registry, host) in [("r.example:5000", "r.example"), ("127.0.0.1:5000", "127.0.0.1"), ("[::1]:5000", "::1"), ("[::1]", "::1")]
        {
            assert_eq!(source(&reference(&format!("{registry}/a")), None)[&format!("containerd.io/distribution.source.{host}")], "a");
        }
    }

    #[test]
    fn every_child_is_kept() {
        let manifest = manifest(2);
        let labels = of_manifest(&manifest);
        assert_eq!(labels["containerd.io/gc.ref.content.config"], manifest.config.digest.to_string());
        assert_eq!(labels["containerd.io/gc.ref.content.l.1"], manifest.layers[1].digest.to_string());
        let nested = Descriptor::new(Digest::of(b"nested"), 1, "application/vnd.oci.image.index.v1+json");
        let kept = of_index(&[&manifest.layers[..1], std::slice::from_ref(&nested), &manifest.layers[1..]].concat());
        let wanted = [
            ("containerd.io/gc.ref.content.0", nested.digest),
            ("containerd.io/gc.ref.content.m.0", manifest.layers[0].digest),
            ("containerd.io/gc.ref.content.m.1", manifest.layers[1].digest),
        ];
        assert_eq!(kept, wanted.into_iter().map(|(key, digest)| (key.to_owned(), digest.to_string())).collect());
        let top = Digest::of(b"top");
        assert_eq!(of_config("snap", Some(&top))["containerd.io/gc.ref.snapshot.snap"], top.to_string());
    }
}
