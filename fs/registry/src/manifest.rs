//! Manifests and image indexes: from bytes that may be hostile to types that hold what they promise.

use std::collections::BTreeMap;

use oci_spec::image as oci;
use serde::Deserialize;
use snap_digest::DigestError;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::limits::{DOCUMENT_MAX_BYTES, INDEX_DEPTH_MAX, INDEX_ENTRIES_MAX, LAYERS_MAX};
use crate::media_type::{DOCKER_CONFIG, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, is_index, is_manifest, is_schema1};
use crate::platform::Platform;
use crate::schema1::Schema1Error;

/// Operating system and architecture that buildkit writes on its attestations.
const UNKNOWN: &str = "unknown";

/// What is wrong with a manifest, an index or a configuration.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Longer than any such document.
    #[error("{0} bytes are more than a manifest may have")]
    TooLong(usize),
    /// No JSON of the right shape.
    #[error("not a valid document: {0}")]
    Json(#[from] serde_json::Error),
    /// A digest that is none, or of an algorithm that is not supported.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Docker's first manifest format, which has to be converted first.
    #[error("it is a docker schema 1 manifest, which is not supported; hint: push the image again with a current client")]
    Schema1,
    /// What a schema 1 manifest holds does not make an image.
    #[error(transparent)]
    Schema1Content(#[from] Schema1Error),
    /// Both a manifest and an index, or neither; or not what its media type says (CVE-2021-41190).
    #[error("it is not clear whether it is a manifest or an index (media type {0:?})")]
    Ambiguous(String),
    /// An index where a manifest was expected, or the other way round.
    #[error("it is {found}, not {expected}")]
    Kind {
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// More layers than any image.
    #[error("{0} layers are more than the {LAYERS_MAX} allowed")]
    TooManyLayers(usize),
    /// More entries than any index.
    #[error("{0} entries are more than the {INDEX_ENTRIES_MAX} allowed")]
    TooManyEntries(usize),
    /// Indexes inside indexes, without end.
    #[error("more than {INDEX_DEPTH_MAX} indexes inside each other")]
    TooDeep,
    /// Manifest and configuration are not of one image.
    #[error("the manifest has {layers} layers and the configuration {diff_ids} diff IDs")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Diff IDs of the configuration.
        diff_ids: usize,
    },
    /// Layers of a kind this crate has never heard of.
    #[error("the root file system is of type {0:?}, not layers")]
    RootFs(String),
}

/// The manifest of one image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// The manifest itself.
    pub descriptor: Descriptor,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// What the manifest is about, if it is a referrer of another.
    pub subject: Option<Descriptor>,
}

/// What a document is, by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// An image manifest.
    Manifest,
    /// An image index (docker: manifest list).
    Index,
}

/// Presence of the fields that tell the kinds apart; their contents are skipped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Where a document says what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Labels {
    media_type: Option<String>,
    config: Option<Label>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Label {
    media_type: Option<String>,
}

/// Tells what `bytes` are, and refuses what could be read as either kind.
///
/// `media_type` is what the descriptor or the registry says; empty if nobody says anything.
pub fn document_kind(bytes: &[u8], media_type: &str) -> Result<DocumentKind, DocumentError> {
    if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
        return Err(DocumentError::TooLong(bytes.len()));
    }
    if is_schema1(media_type) {
        return Err(DocumentError::Schema1);
    }
    let shape: Shape = serde_json::from_slice(bytes)?;
    if shape.schema_version == Some(1) || shape.fs_layers.is_some() || shape.media_type.as_deref().is_some_and(is_schema1) {
        return Err(DocumentError::Schema1);
    }
    let kind = match (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some()) {
        (true, false) => DocumentKind::Index,
        (false, true) => DocumentKind::Manifest,
        _ => return Err(DocumentError::Ambiguous(media_type.to_owned())),
    };
    for said in [Some(media_type), shape.media_type.as_deref()].into_iter().flatten() {
        let other = match kind {
            DocumentKind::Index => is_manifest(said),
            DocumentKind::Manifest => is_index(said),
        };
        if other {
            return Err(DocumentError::Ambiguous(said.to_owned()));
        }
    }
    Ok(kind)
}

/// The media type of a manifest or index: what its descriptor says if that is one, else what the document itself says, else what
/// its content shows.
pub fn document_media_type(bytes: &[u8], said: &str) -> Result<String, DocumentError> {
    let kind = document_kind(bytes, said)?;
    let is_known = |media_type: &str| is_manifest(media_type) || is_index(media_type);
    if is_known(said) {
        return Ok(said.to_owned());
    }
    let labels: Labels = serde_json::from_slice(bytes)?;
    if let Some(own) = labels.media_type.filter(|own| is_known(own)) {
        return Ok(own);
    }
    // Docker's own documents always say what they are; those of others may have been stripped of it.
    let is_docker = labels.config.is_some_and(|config| config.media_type.as_deref() == Some(DOCKER_CONFIG));
    Ok(match kind {
        DocumentKind::Index => OCI_INDEX,
        DocumentKind::Manifest if is_docker => DOCKER_MANIFEST,
        DocumentKind::Manifest => OCI_MANIFEST,
    }
    .to_owned())
}

/// Reads an image manifest. `descriptor` is what the bytes were asked by; that they match it has been checked before.
pub fn parse_manifest(bytes: &[u8], descriptor: &Descriptor) -> Result<ImageManifest, DocumentError> {
    if document_kind(bytes, &descriptor.media_type)? != DocumentKind::Manifest {
        return Err(DocumentError::Kind { found: "an image index", expected: "an image manifest" });
    }
    let manifest: oci::ImageManifest = serde_json::from_slice(bytes)?;
    if manifest.layers().len() > LAYERS_MAX {
        return Err(DocumentError::TooManyLayers(manifest.layers().len()));
    }
    Ok(ImageManifest {
        descriptor: descriptor.clone(),
        config: Descriptor::from_oci(manifest.config())?,
        layers: manifest.layers().iter().map(Descriptor::from_oci).collect::<Result<_, _>>()?,
        annotations: manifest.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        subject: manifest.subject().as_ref().map(Descriptor::from_oci).transpose()?,
    })
}

/// Everything that an image index names, for all platforms and in its order: manifests, further indexes, attestations and other
/// artifacts, each with digest, size, media type and platform. An entry whose digest is not supported is left out.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<Descriptor>, DocumentError> {
    if document_kind(bytes, "")? != DocumentKind::Index {
        return Err(DocumentError::Kind { found: "an image manifest", expected: "an image index" });
    }
    let index: oci::ImageIndex = serde_json::from_slice(bytes)?;
    if index.manifests().len() > INDEX_ENTRIES_MAX {
        return Err(DocumentError::TooManyEntries(index.manifests().len()));
    }
    Ok(index.manifests().iter().filter_map(|entry| Descriptor::from_oci(entry).ok()).collect())
}

/// The entry of the image index `bytes` that serves `platform` best: a manifest, or an index that has to be looked into.
///
/// An exact match is best, then the newest older variant; the first of equals. An entry without a platform is taken only
/// where no other fits. Attestations and other artifacts are passed over.
pub fn choose_platform(bytes: &[u8], platform: &Platform) -> Result<Descriptor, Error> {
    let entries = parse_index(bytes).map_err(|source| Error::Document { what: "image index".to_owned(), source: source.into() })?;
    let images: Vec<Descriptor> = entries.into_iter().filter(is_image).collect();
    let best = images
        .iter()
        .filter_map(|entry| Some((entry.platform.as_ref()?.distance(platform)?, entry)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, entry)| entry)
        .or_else(|| images.iter().find(|entry| entry.platform.is_none()));
    match best {
        Some(entry) => Ok(entry.clone()),
        None => {
            let mut available: Vec<Platform> = images.into_iter().filter_map(|entry| entry.platform).collect();
            available.dedup();
            Err(Error::NoPlatform { wanted: platform.clone(), available })
        }
    }
}

fn is_image(entry: &Descriptor) -> bool {
    (is_manifest(&entry.media_type) || is_index(&entry.media_type))
        && entry.artifact_type.is_none()
        && entry.platform.as_ref().is_none_or(|platform| platform.os != UNKNOWN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snap_digest::Digest;

    use super::*;
    use crate::media_type::DOCKER_LIST;

    fn entry(name: &str, platform: &str, more: &str) -> String {
        let platform = match platform.split('/').collect::<Vec<_>>().as_slice() {
            [os, arch] => format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#),
            [os, arch, variant] => format!(r#","platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}"#),
            _ => String::new(),
        };
        format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{}{platform}{more}}}"#, Digest::of(name.as_bytes()), name.len())
    }

    fn index(entries: &[String]) -> Vec<u8> {
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, entries.join(",")).into_bytes()
    }

    fn chosen(entries: &[String], platform: &str) -> Result<Digest, Error> {
        choose_platform(&index(entries), &platform.parse().unwrap()).map(|entry| entry.digest)
    }

    fn manifest(layers: usize) -> Vec<u8> {
        let blob = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":3}}"#, Digest::of(b"abc"));
        let layers = vec![blob("application/vnd.oci.image.layer.v1.tar+gzip"); layers].join(",");
        let config = blob("application/vnd.oci.image.config.v1+json");
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}],"annotations":{{"a":"b"}}}}"#).into_bytes()
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let soci = r#","artifactType":"application/vnd.amazon.soci.index.v2+json""#;
        let entries = [
            entry("attestation", "unknown/unknown", ""),
            entry("soci", "linux/amd64", soci),
            entry("amd64", "linux/amd64", ""),
            entry("amd64 again", "linux/amd64", ""),
            entry("armv6", "linux/arm/v6", ""),
            entry("armv5", "linux/arm/v5", ""),
            entry("arm64", "linux/arm64/v8", ""),
        ];
        for (platform, name) in [("linux/amd64", "amd64"), ("linux/amd64/v3", "amd64"), ("linux/arm", "armv6"), ("linux/arm64", "arm64")] {
            assert_eq!(chosen(&entries, platform).unwrap(), Digest::of(name.as_bytes()), "{platform}");
        }
    }

    #[test]
    fn an_unknown_platform_is_answered_with_those_there_are() {
        let entries = [entry("a", "linux/amd64", ""), entry("x", "unknown/unknown", ""), entry("b", "linux/arm/v7", "")];
        let error = chosen(&entries, "linux/s390x").unwrap_err();
        assert_eq!(error.to_string(), "no image for platform linux/s390x; there are: linux/amd64, linux/arm/v7");
    }

    #[test]
    fn an_entry_without_platform_is_the_last_choice() {
        let entries = [entry("any", "", ""), entry("arm", "linux/arm64", "")];
        assert_eq!(chosen(&entries, "linux/arm64").unwrap(), Digest::of(b"arm"));
        assert_eq!(chosen(&entries, "linux/amd64").unwrap(), Digest::of(b"any"));
    }

    #[test]
    fn a_manifest_is_read() {
        let bytes = manifest(2);
        let parsed = parse_manifest(&bytes, &Descriptor::of(&bytes, OCI_MANIFEST)).unwrap();
        assert_eq!((parsed.layers.len(), parsed.layers[1].digest, parsed.config.size_bytes), (2, Digest::of(b"abc"), 3));
        assert_eq!(parsed.annotations["a"], "b");
    }

    #[test]
    fn a_media_type_nobody_said_is_found_in_the_document() {
        let plain = String::from_utf8(manifest(1)).unwrap();
        let docker = plain.replace("application/vnd.oci.image.config.v1+json", DOCKER_CONFIG);
        let labelled = plain.replacen('{', &format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","#), 1);
        let list = String::from_utf8(index(&[])).unwrap().replace(OCI_INDEX, DOCKER_LIST);
        let bare_list = r#"{"schemaVersion":2,"manifests":[]}"#;
        for (document, said, found) in [
            (&plain, "", OCI_MANIFEST),
            (&plain, "text/plain", OCI_MANIFEST),
            (&plain, DOCKER_MANIFEST, DOCKER_MANIFEST),
            (&docker, "", DOCKER_MANIFEST),
            (&labelled, "application/octet-stream", DOCKER_MANIFEST),
            (&list, "", DOCKER_LIST),
            (&bare_list.to_owned(), "", OCI_INDEX),
        ] {
            assert_eq!(document_media_type(document.as_bytes(), said).unwrap(), found, "{said} {document}");
        }
        assert!(matches!(document_media_type(plain.as_bytes(), OCI_INDEX), Err(DocumentError::Ambiguous(_))));
    }

    #[test]
    fn an_index_tells_everything_it_names() {
        let attestation = entry("attestation", "unknown/unknown", "");
        let sha512 = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha512:{}","size":1}}"#, "0".repeat(128));
        let entries = parse_index(&index(&[entry("a", "linux/amd64", ""), sha512, attestation])).unwrap();
        let named: Vec<_> = entries.iter().map(|entry| (entry.digest, entry.size_bytes, entry.media_type.as_str())).collect();
        assert_eq!(named, [(Digest::of(b"a"), 1, OCI_MANIFEST), (Digest::of(b"attestation"), 11, OCI_MANIFEST)]);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let refused = |bytes: &[u8], media_type: &str| parse_manifest(bytes, &Descriptor::of(bytes, media_type)).unwrap_err();
        assert!(matches!(refused(b"{\"schemaVersion\":1,\"fsLayers\":[]}", ""), DocumentError::Schema1));
        assert!(matches!(refused(&manifest(1), crate::media_type::DOCKER_SCHEMA1_SIGNED), DocumentError::Schema1));
        assert!(matches!(refused(&manifest(1), DOCKER_LIST), DocumentError::Ambiguous(_)));
        assert!(matches!(refused(br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, ""), DocumentError::Ambiguous(_)));
        assert!(matches!(refused(br#"{"schemaVersion":2}"#, ""), DocumentError::Ambiguous(_)));
        assert!(matches!(refused(&index(&[]), OCI_INDEX), DocumentError::Kind { .. }));
        assert!(matches!(refused(&manifest(LAYERS_MAX + 1), ""), DocumentError::TooManyLayers(_)));
        assert!(matches!(refused(b"<html>", ""), DocumentError::Json(_)));
        assert!(matches!(refused(&vec![b' '; DOCUMENT_MAX_BYTES as usize + 1], ""), DocumentError::TooLong(_)));
        let sha512 =
            String::from_utf8(manifest(1)).unwrap().replace(&Digest::of(b"abc").to_string(), &format!("sha512:{}", "0".repeat(128)));
        assert!(matches!(refused(sha512.as_bytes(), ""), DocumentError::Digest(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_manifest(&bytes, &Descriptor::of(&bytes, ""));
            let _ = choose_platform(&bytes, &Platform::host());
        }

        #[test]
        fn a_damaged_manifest_is_read_or_refused(at in 0usize..300, byte in any::<u8>()) {
            let mut bytes = manifest(1);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = parse_manifest(&bytes, &Descriptor::of(&bytes, OCI_MANIFEST));
        }
    }
}
