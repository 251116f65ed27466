//! From a schema 1 manifest to an image of today: a configuration and a manifest of schema 2, as docker and containerd make them.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use snap_digest::Digest;

use crate::descriptor::Descriptor;
use crate::image::parse_config;
use crate::manifest::DocumentError;
use crate::media_type::{DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST};
use crate::schema1::{Schema1Error, Schema1Layer, Schema1Manifest};

/// What a v1 entry says about itself and not about the image.
const V1_ONLY: [&str; 6] = ["id", "parent", "parent_id", "layer_id", "Size", "throwaway"];
/// Schema 1 has only ever held images for linux; docker's first clients did not say so, and ran on one architecture.
const OS_DEFAULT: &str = "linux";
const ARCHITECTURE_DEFAULT: &str = "amd64";

/// What has been found out about a blob of a schema 1 manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema1Blob {
    /// The blob.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// The digest of its uncompressed tar. The blob's own digest means that it is not compressed; else it is taken for gzip.
    pub diff_id: Digest,
}

/// An image that was made of a schema 1 manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertedImage {
    /// The configuration, of docker's type.
    pub config: Descriptor,
    /// Its bytes.
    pub config_bytes: Bytes,
    /// The manifest, of docker's schema 2.
    pub manifest: Descriptor,
    /// Its bytes.
    pub manifest_bytes: Bytes,
}

impl Schema1Manifest {
    /// The same image in docker's schema 2. `blobs`: what is known of each of [`Schema1Manifest::kept_blobs`], in their order.
    ///
    /// The configuration is the last step's entry without what only concerns v1, with the whole build as its history. The same
    /// input always gives the same bytes.
    pub fn convert(&self, blobs: &[Schema1Blob]) -> Result<ConvertedImage, DocumentError> {
        let kept: Vec<Digest> = self.kept_blobs().collect();
        let differs = |index: &usize| kept.get(*index) != blobs.get(*index).map(|blob| &blob.digest);
        if let Some(index) = (0..kept.len().max(blobs.len())).find(differs) {
            return Err(Schema1Error::Blobs { index }.into());
        }
        let config_bytes = self.config(blobs)?;
        // Whoever reads it next must be able to.
        parse_config(&config_bytes)?;
        let config = Descriptor::of(&config_bytes, DOCKER_CONFIG);
        let layers: Vec<Value> = blobs.iter().map(|blob| described(&blob.descriptor())).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": described(&config), "layers": layers});
        let manifest_bytes = Bytes::from(manifest.to_string());
        Ok(ConvertedImage { config, config_bytes, manifest: Descriptor::of(&manifest_bytes, DOCKER_MANIFEST), manifest_bytes })
    }

    fn config(&self, blobs: &[Schema1Blob]) -> Result<Bytes, DocumentError> {
        let entry = serde_json::from_str::<Map<String, Value>>(&self.last_entry);
        let mut config = entry.map_err(|source| Schema1Error::Entry { index: 0, source })?;
        for name in V1_ONLY {
            config.remove(name);
        }
        let architecture = if self.architecture.is_empty() { ARCHITECTURE_DEFAULT } else { &self.architecture };
        for (name, default) in [("os", OS_DEFAULT), ("architecture", architecture)] {
            if config.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                config.insert(name.to_owned(), default.into());
            }
        }
        let created = self.layers.last().and_then(|layer| layer.created.clone());
        match created {
            Some(created) => config.insert("created".to_owned(), created.into()),
            None => config.remove("created"),
        };
        let diff_ids: Vec<Digest> = blobs.iter().map(|blob| blob.diff_id).collect();
        config.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        config.insert("history".to_owned(), self.layers.iter().map(history).collect());
        Ok(Value::Object(config).to_string().into())
    }
}

impl Schema1Blob {
    fn descriptor(&self) -> Descriptor {
        let media_type = if self.diff_id == self.digest { DOCKER_LAYER } else { DOCKER_LAYER_GZIP };
        Descriptor::new(self.digest, self.size_bytes, media_type)
    }
}

fn history(layer: &Schema1Layer) -> Value {
    let said = [("created", &layer.created), ("author", &layer.author), ("created_by", &layer.created_by), ("comment", &layer.comment)];
    let mut entry: Map<String, Value> = said.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into()))).collect();
    if layer.is_empty {
        entry.insert("empty_layer".to_owned(), true.into());
    }
    Value::Object(entry)
}

fn described(descriptor: &Descriptor) -> Value {
    json!({"mediaType": descriptor.media_type, "size": descriptor.size_bytes, "digest": descriptor.digest})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse_manifest;
    use crate::schema1::parse_schema1;
    use crate::schema1::tests::manifest;

    const EMPTY: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";

    fn blob(name: &str, diff_id: &str) -> Schema1Blob {
        Schema1Blob { digest: Digest::of(name.as_bytes()), size_bytes: name.len() as u64, diff_id: Digest::of(diff_id.as_bytes()) }
    }

    fn schema1() -> Schema1Manifest {
        let last = json!({
            "id": "c", "parent": "b", "throwaway": true, "Size": 0, "layer_id": "x", "parent_id": "y",
            "os": "linux", "docker_version": "1.9.1", "created": "2016-01-02T03:04:07Z", "author": "me",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "User": "1"}, "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) CMD"]},
        });
        let middle = json!({"id": "b", "parent": "a", "created": "2016-01-02T03:04:06Z", "comment": "two"});
        let first = json!({"id": "a", "created": "2016-01-02T03:04:05Z", "container_config": {"Cmd": ["ADD", "x"]}});
        let blobs = [Digest::of(b"two").to_string(), Digest::of(b"one").to_string()];
        parse_schema1(&manifest(&[(EMPTY, last), (&blobs[0], middle), (&blobs[1], first)])).unwrap()
    }

    #[test]
    fn an_image_of_today_is_made_of_it() {
        let (one, two) = (blob("one", "one"), blob("two", "two unpacked"));
        let image = schema1().convert(&[one, two]).unwrap();
        let config: Value = serde_json::from_slice(&image.config_bytes).unwrap();
        let expected = json!({
            "architecture": "arm64", "os": "linux", "docker_version": "1.9.1", "created": "2016-01-02T03:04:07Z", "author": "me",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "User": "1"}, "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) CMD"]},
            "rootfs": {"type": "layers", "diff_ids": [one.diff_id, two.diff_id]},
            "history": [
                {"created": "2016-01-02T03:04:05Z", "created_by": "ADD x"},
                {"created": "2016-01-02T03:04:06Z", "comment": "two"},
                {"created": "2016-01-02T03:04:07Z", "author": "me", "created_by": "/bin/sh -c #(nop) CMD", "empty_layer": true},
            ],
        });
        assert_eq!(config, expected);
        let manifest = parse_manifest(&image.manifest_bytes, &image.manifest).unwrap();
        assert_eq!(manifest.config, Descriptor::of(&image.config_bytes, DOCKER_CONFIG));
        // What is its own diff ID is not compressed.
        let layers: Vec<_> = manifest.layers.iter().map(|layer| (layer.digest, layer.size_bytes, layer.media_type.as_str())).collect();
        assert_eq!(layers, [(one.digest, 3, DOCKER_LAYER), (two.digest, 3, DOCKER_LAYER_GZIP)]);
        assert_eq!(image.manifest, Descriptor::of(&image.manifest_bytes, DOCKER_MANIFEST));
        assert_eq!(schema1().convert(&[one, two]).unwrap(), image);
    }

    #[test]
    fn other_blobs_than_those_it_names_are_refused() {
        let (one, two) = (blob("one", "1"), blob("two", "2"));
        for (blobs, index) in [(vec![], 0), (vec![one], 1), (vec![two, one], 0), (vec![one, two, two], 2)] {
            let error = schema1().convert(&blobs).unwrap_err();
            assert!(matches!(error, DocumentError::Schema1Content(Schema1Error::Blobs { index: at }) if at == index), "{error}");
        }
    }
}
