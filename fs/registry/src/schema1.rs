//! Docker's first manifest format, "image manifest version 2, schema 1"
//! (<https://github.com/distribution/distribution/blob/v2.8.3/docs/spec/manifest-v2-1.md>): what it says, and what of it is signed.
//!
//! It has a blob and a "v1 compatibility" entry for each step of the build, the last step first. Its blobs have neither size nor
//! diff ID, so an image of today can only be made of it when they are known: see [`Schema1Manifest::convert`].

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Number;
use snap_digest::Digest;

use crate::limits::{DOCUMENT_MAX_BYTES, LAYERS_MAX};
use crate::manifest::DocumentError;
use crate::timestamp::rfc3339;

/// The tar of two empty blocks, compressed by docker: the blob of every step that changed no file.
const EMPTY_LAYER: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
/// Signatures are written without padding; who adds some is understood as well.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What is wrong with a schema 1 manifest.
#[derive(Debug, thiserror::Error)]
pub enum Schema1Error {
    /// The signature does not say what it signs.
    #[error("its signature does not say what is signed")]
    Signature,
    /// Not of schema version 1.
    #[error("it is not of schema version 1")]
    Version,
    /// No blob for each entry of the history, or none of either.
    #[error("it has {blobs} blobs and {history} entries in its history")]
    History {
        /// Blobs.
        blobs: usize,
        /// Entries of the history.
        history: usize,
    },
    /// An entry of the history that is none.
    #[error("entry {index} of its history: {source}")]
    Entry {
        /// Which, from 0, as in the file.
        index: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The blobs given for a conversion are not those that the manifest names.
    #[error("blob {index} given for its conversion is not the one it names")]
    Blobs {
        /// The first that differs, from 0, the lowest first.
        index: usize,
    },
}

/// A schema 1 manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema1Manifest {
    /// The digest that names it: of what is signed, which are all its bytes where nothing is.
    pub digest: Digest,
    /// The repository it was pushed to, as it says.
    pub name: String,
    /// The tag it was pushed as, as it says.
    pub tag: String,
    /// The build's steps, the first and lowest first. Never empty.
    pub layers: Vec<Schema1Layer>,
    /// As the manifest itself says.
    pub(crate) architecture: String,
    /// The last step's entry, which is the image's configuration too.
    pub(crate) last_entry: String,
}

/// One step of the build, and its blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema1Layer {
    /// The blob, in whatever compression.
    pub blob: Digest,
    /// Whether the step changed no file, so that its blob is no layer of the converted image and need not be fetched.
    pub is_empty: bool,
    /// The v1 ID of the image after this step.
    pub id: String,
    /// The v1 ID of the image before it; empty for the first.
    pub parent: String,
    /// When, as RFC 3339.
    pub created: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// With which command; words joined by spaces.
    pub created_by: Option<String>,
    /// And with which comment.
    pub comment: Option<String>,
}

impl Schema1Manifest {
    /// The blobs that become layers, the lowest first. One that several steps share is there for each of them.
    pub fn kept_blobs(&self) -> impl Iterator<Item = Digest> {
        self.layers.iter().filter(|layer| !layer.is_empty).map(|layer| layer.blob)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    schema_version: Option<u64>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    architecture: String,
    fs_layers: Vec<FsLayer>,
    history: Vec<HistoryEntry>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HistoryEntry {
    v1_compatibility: String,
}

/// What is used of a step's entry.
#[derive(Deserialize)]
struct V1Image {
    id: Option<String>,
    parent: Option<String>,
    created: Option<String>,
    author: Option<String>,
    comment: Option<String>,
    throwaway: Option<bool>,
    /// From before `throwaway`: the bytes of the files that the step changed.
    #[serde(rename = "Size")]
    size: Option<Number>,
    container_config: Option<V1ContainerConfig>,
}

#[derive(Deserialize)]
struct V1ContainerConfig {
    #[serde(rename = "Cmd")]
    command: Option<Command>,
}

/// Early clients wrote a single word without its list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Words(Vec<String>),
    Word(String),
}

/// Reads a schema 1 manifest, signed or not. That the bytes are those asked for is to be checked with [`schema1_payload`] or
/// [`Schema1Manifest::digest`].
///
/// The signature itself is **not verified**, here or by any other client: it is made with a key that nobody knows. What counts is
/// the digest of what is signed.
pub fn parse_schema1(bytes: &[u8]) -> Result<Schema1Manifest, DocumentError> {
    let payload = schema1_payload(bytes)?;
    let payload = payload.as_deref().unwrap_or(bytes);
    let file: File = serde_json::from_slice(payload)?;
    if file.schema_version != Some(1) {
        return Err(Schema1Error::Version.into());
    }
    if file.layers.is_some() || file.manifests.is_some() || file.config.is_some() {
        return Err(DocumentError::Ambiguous(String::new()));
    }
    let (blobs, history) = (file.fs_layers.len(), file.history.len());
    if blobs > LAYERS_MAX {
        return Err(DocumentError::TooManyLayers(blobs));
    }
    let Some(last_entry) = file.history.first().filter(|_| blobs == history) else {
        return Err(Schema1Error::History { blobs, history }.into());
    };
    let steps = file.fs_layers.iter().zip(&file.history).enumerate();
    let layers = steps.rev().map(|(index, (blob, entry))| layer(index, blob, entry)).collect::<Result<_, _>>()?;
    Ok(Schema1Manifest {
        digest: Digest::of(payload),
        layers,
        last_entry: last_entry.v1_compatibility.clone(),
        name: file.name,
        tag: file.tag,
        architecture: file.architecture,
    })
}

fn layer(index: usize, blob: &FsLayer, entry: &HistoryEntry) -> Result<Schema1Layer, DocumentError> {
    let blob: Digest = blob.blob_sum.parse()?;
    let v1: V1Image = serde_json::from_str(&entry.v1_compatibility).map_err(|source| Schema1Error::Entry { index, source })?;
    let has_no_files = v1.throwaway.unwrap_or_else(|| v1.size.is_some_and(|size| size.as_u64() == Some(0)));
    let command = v1.container_config.and_then(|config| config.command).map(|command| match command {
        Command::Words(words) => words.join(" "),
        Command::Word(word) => word,
    });
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Schema1Layer {
        is_empty: has_no_files || blob.to_string() == EMPTY_LAYER,
        blob,
        id: v1.id.unwrap_or_default(),
        parent: v1.parent.unwrap_or_default(),
        // Readers of the configuration refuse all of it if one time is none.
        created: v1.created.filter(|created| rfc3339(created).is_some()),
        author: said(v1.author),
        created_by: said(command),
        comment: said(v1.comment),
    })
}

#[derive(Deserialize)]
struct Signed {
    #[serde(default)]
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    protected: String,
}

/// What a signature says about the text it is part of: the signed text is the first `format_length` bytes and then `format_tail`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protected {
    format_length: usize,
    format_tail: String,
}

/// What is signed of the signed schema 1 manifest `bytes`; `None` if there is no signature. Its digest is the one that names the
/// manifest, so **only this part of the bytes is verified** by a digest: nothing else of them may be used.
pub fn schema1_payload(bytes: &[u8]) -> Result<Option<Bytes>, DocumentError> {
    if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
        return Err(DocumentError::TooLong(bytes.len()));
    }
    let signed: Signed = serde_json::from_slice(bytes)?;
    let Some(signature) = signed.signatures.first() else { return Ok(None) };
    let protected = BASE64.decode(&signature.protected).ok().and_then(|text| serde_json::from_slice::<Protected>(&text).ok());
    let protected = protected.ok_or(Schema1Error::Signature)?;
    let head = bytes.get(..protected.format_length).ok_or(Schema1Error::Signature)?;
    let tail = BASE64.decode(&protected.format_tail).map_err(|_| Schema1Error::Signature)?;
    Ok(Some([head, &tail].concat().into()))
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A manifest of these steps, the last first: blob and entry.
    pub(crate) fn manifest(steps: &[(&str, Value)]) -> Vec<u8> {
        let blobs: Vec<Value> = steps.iter().map(|(blob, _)| json!({"blobSum": blob})).collect();
        let history: Vec<Value> = steps.iter().map(|(_, entry)| json!({"v1Compatibility": entry.to_string()})).collect();
        let manifest =
            json!({"schemaVersion": 1, "name": "library/a", "tag": "t", "architecture": "arm64", "fsLayers": blobs, "history": history});
        serde_json::to_vec_pretty(&manifest).unwrap()
    }

    fn protected(length: usize, tail: &str) -> String {
        URL_SAFE_NO_PAD.encode(json!({"formatLength": length, "formatTail": tail, "time": "2016-01-02T03:04:05Z"}).to_string())
    }

    /// `payload` as docker's clients signed it.
    fn signed(payload: &[u8]) -> Vec<u8> {
        let head = payload.strip_suffix(b"\n}").unwrap();
        let signature = json!({"protected": protected(head.len(), &URL_SAFE_NO_PAD.encode("\n}")), "signature": "x"});
        [head, format!(",\n   \"signatures\": [{signature}]\n}}").as_bytes()].concat()
    }

    fn blob(name: &str) -> String {
        Digest::of(name.as_bytes()).to_string()
    }

    fn three_steps() -> Vec<u8> {
        manifest(&[
            (
                EMPTY_LAYER,
                json!({"id": "c", "parent": "b", "throwaway": true, "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) CMD"]}}),
            ),
            (&blob("b"), json!({"id": "b", "parent": "a", "author": "me", "comment": "", "created": "2016-01-02T03:04:05.678901234Z"})),
            (&blob("a"), json!({"id": "a", "container_config": {"Cmd": "one word"}, "created": "not a time", "comment": "Imported"})),
        ])
    }

    #[test]
    fn the_steps_of_a_build_are_read_lowest_first() {
        let bytes = three_steps();
        let parsed = parse_schema1(&bytes).unwrap();
        assert_eq!((parsed.digest, parsed.name.as_str(), parsed.tag.as_str()), (Digest::of(&bytes), "library/a", "t"));
        let step = |id: &str, parent: &str, blob: &str| Schema1Layer {
            blob: blob.parse().unwrap(),
            is_empty: false,
            id: id.to_owned(),
            parent: parent.to_owned(),
            created: None,
            author: None,
            created_by: None,
            comment: None,
        };
        let said = |text: &str| Some(text.to_owned());
        let expected = [
            Schema1Layer { created_by: said("one word"), comment: said("Imported"), ..step("a", "", &blob("a")) },
            Schema1Layer { author: said("me"), created: said("2016-01-02T03:04:05.678901234Z"), ..step("b", "a", &blob("b")) },
            Schema1Layer { is_empty: true, created_by: said("/bin/sh -c #(nop) CMD"), ..step("c", "b", EMPTY_LAYER) },
        ];
        assert_eq!(parsed.layers, expected);
        assert_eq!(parsed.kept_blobs().collect::<Vec<_>>(), [Digest::of(b"a"), Digest::of(b"b")]);
    }

    #[test]
    fn a_step_without_files_is_known_by_its_entry_or_its_blob() {
        for (blob, entry, is_empty) in [
            (&*blob("a"), json!({}), false),
            (&*blob("a"), json!({"throwaway": true}), true),
            (&*blob("a"), json!({"throwaway": false, "Size": 0}), false),
            (&*blob("a"), json!({"Size": 0}), true),
            (&*blob("a"), json!({"Size": 10}), false),
            (EMPTY_LAYER, json!({}), true),
        ] {
            assert_eq!(parse_schema1(&manifest(&[(blob, entry.clone())])).unwrap().layers[0].is_empty, is_empty, "{blob} {entry}");
        }
    }

    #[test]
    fn a_signed_manifest_is_named_by_what_is_signed() {
        let payload = three_steps();
        let signed = signed(&payload);
        assert_eq!(schema1_payload(&signed).unwrap().unwrap(), payload);
        assert_eq!(schema1_payload(&payload).unwrap(), None);
        assert_eq!(parse_schema1(&signed).unwrap(), parse_schema1(&payload).unwrap());
        assert!(signed.len() > payload.len() && Digest::of(&signed) != parse_schema1(&signed).unwrap().digest);
    }

    #[test]
    fn a_signature_that_signs_nothing_is_refused() {
        let with = |protected: &str| json!({"schemaVersion": 1, "signatures": [{"protected": protected}]}).to_string().into_bytes();
        for protected in
            [protected(1 << 20, "fQ"), protected(1, "!"), protected(1, "f"), "!".to_owned(), URL_SAFE_NO_PAD.encode("{}"), String::new()]
        {
            let error = parse_schema1(&with(&protected)).unwrap_err();
            assert!(matches!(error, DocumentError::Schema1Content(Schema1Error::Signature)), "{protected}: {error}");
        }
        // Padding is none of the form, and does no harm.
        assert_eq!(schema1_payload(&with(&protected(0, "fQ=="))).unwrap().unwrap(), &b"}"[..]);
    }

    #[test]
    fn what_is_no_schema1_manifest_is_refused() {
        let altered = |change: &dyn Fn(&mut Value)| {
            let mut value: Value = serde_json::from_slice(&three_steps()).unwrap();
            change(&mut value);
            parse_schema1(value.to_string().as_bytes()).unwrap_err()
        };
        for key in ["layers", "manifests", "config"] {
            assert!(matches!(altered(&|value| value[key] = json!([])), DocumentError::Ambiguous(_)), "{key}");
        }
        let content = |error: DocumentError| match error {
            DocumentError::Schema1Content(error) => error,
            other => panic!("{other}"),
        };
        assert!(matches!(content(altered(&|value| value["schemaVersion"] = json!(2))), Schema1Error::Version));
        assert!(matches!(content(altered(&|value| value["history"] = json!([]))), Schema1Error::History { blobs: 3, history: 0 }));
        let nothing = altered(&|value| (value["history"], value["fsLayers"]) = (json!([]), json!([])));
        assert!(matches!(content(nothing), Schema1Error::History { blobs: 0, history: 0 }));
        let entry = altered(&|value| value["history"][1]["v1Compatibility"] = json!("{"));
        assert!(matches!(content(entry), Schema1Error::Entry { index: 1, .. }));
        assert!(matches!(altered(&|value| value["fsLayers"][0]["blobSum"] = json!("sha256:0")), DocumentError::Digest(_)));
        assert!(matches!(
            altered(&|value| value["fsLayers"] = json!(vec![json!({"blobSum": ""}); LAYERS_MAX + 1])),
            DocumentError::TooManyLayers(_)
        ));
        assert!(matches!(parse_schema1(&vec![b' '; DOCUMENT_MAX_BYTES as usize + 1]), Err(DocumentError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn a_damaged_manifest_is_read_or_refused(at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = signed(&three_steps());
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(manifest) = parse_schema1(&bytes) {
                let blobs: Vec<_> = manifest.kept_blobs().map(|digest| crate::Schema1Blob { digest, size_bytes: 1, diff_id: digest }).collect();
                let _ = manifest.convert(&blobs);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_schema1(&bytes);
        }

        #[test]
        fn any_length_and_tail_are_survived(length in any::<usize>(), tail in "[A-Za-z0-9_=-]{0,12}") {
            let bytes = json!({"signatures": [{"protected": protected(length, &tail)}]}).to_string();
            if let Ok(Some(payload)) = schema1_payload(bytes.as_bytes()) {
                prop_assert!(payload.len() <= bytes.len() + tail.len());
            }
        }

        #[test]
        fn any_entry_is_converted_or_refused(entry in r#"\{("(config|created|os|architecture|rootfs|Size|container_config)":(null|1|-1|1.5|""|"x"|\[\]|\{\}|\{"Cmd":null\}),){0,4}"a":1\}"#) {
            let bytes = json!({"schemaVersion": 1, "fsLayers": [{"blobSum": blob("a")}], "history": [{"v1Compatibility": entry}]}).to_string();
            if let Ok(manifest) = parse_schema1(bytes.as_bytes()) {
                let blobs: Vec<_> = manifest.kept_blobs().map(|digest| crate::Schema1Blob { digest, size_bytes: 1, diff_id: digest }).collect();
                if let Ok(image) = manifest.convert(&blobs) {
                    prop_assert!(crate::parse_config(&image.config_bytes).is_ok());
                }
            }
        }
    }
}
