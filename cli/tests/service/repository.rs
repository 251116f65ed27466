//! A repository of a registry, filled by hand: with any document and any blob, also such as no tool would push.

use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};
use snap_digest::Digest;

use crate::process::{stdout, succeed};

#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// `HOST:PORT`.
    pub(crate) registry: String,
    /// Without the registry.
    pub(crate) name: String,
}

impl Repository {
    pub(crate) fn new(registry: &str, name: &str) -> Self {
        Self { registry: registry.to_owned(), name: name.to_owned() }
    }

    /// The same by another address of its registry.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self::new(address, &self.name)
    }

    /// `HOST:PORT/NAME`.
    pub(crate) fn reference(&self) -> String {
        format!("{}/{}", self.registry, self.name)
    }

    pub(crate) fn tagged(&self, tag: &str) -> String {
        format!("{}:{tag}", self.reference())
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}/v2/{}/{rest}", self.registry, self.name)
    }

    /// Stores a blob; returns its descriptor.
    pub(crate) fn blob(&self, media_type: &str, content: &[u8]) -> Value {
        let descriptor = descriptor(media_type, content);
        let upload =
            stdout(curl("POST").args(["--output", "/dev/null", "--write-out", "%header{location}"]).arg(self.url("blobs/uploads/")));
        let mark = if upload.contains('?') { '&' } else { '?' };
        put(&format!("{upload}{mark}digest={}", descriptor["digest"].as_str().unwrap()), "application/octet-stream", content);
        descriptor
    }

    /// Has a blob that another repository of the registry has.
    pub(crate) fn borrow(&self, digest: &str, from: &str) {
        let mut command = curl("POST");
        command.args(["--output", "/dev/null", "--write-out", "%{http_code}"]);
        let code = stdout(command.arg(self.url(&format!("blobs/uploads/?mount={digest}&from={from}"))));
        assert_eq!(code, "201", "{digest} is not in {from}");
    }

    /// Stores a manifest or an index under a tag, or by its digest alone; returns its descriptor.
    pub(crate) fn document(&self, tag: Option<&str>, media_type: &str, document: &Value) -> Value {
        let content = document.to_string().into_bytes();
        let descriptor = descriptor(media_type, &content);
        let name = tag.unwrap_or_else(|| descriptor["digest"].as_str().unwrap());
        put(&self.url(&format!("manifests/{name}")), media_type, &content);
        descriptor
    }

    /// Turns the image of a tag into one of Docker's first schema, as a registry that knows it does for clients that know nothing else.
    /// Returns its digest.
    pub(crate) fn turn_into_schema1(&self, tag: &str) -> String {
        let url = self.url(&format!("manifests/{tag}"));
        let signed = succeed(curl("GET").arg(&url)).stdout;
        put(&url, "application/vnd.docker.distribution.manifest.v1+prettyjws", &signed);
        stdout(curl("HEAD").args(["--head", "--output", "/dev/null", "--write-out", "%header{docker-content-digest}"]).arg(&url))
    }
}

fn curl(method: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail-with-body", "--request", method]);
    command
}

fn put(url: &str, media_type: &str, content: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let mut command = curl("PUT");
    command.args(["--header", &format!("Content-Type: {media_type}"), "--data-binary", &format!("@{}", file.path().display())]);
    succeed(command.arg(url));
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() })
}
