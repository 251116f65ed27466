//! Writes eStargz blobs: members of stored deflate blocks, and whatever TOC a test wants.

use serde_json::{Value, json};
use snap_digest::Digest;

#[derive(Clone)]
pub(crate) struct Estargz {
    pub(crate) blob: Vec<u8>,
    pub(crate) entries: Vec<Value>,
    pub(crate) chunk_bytes: usize,
}

impl Estargz {
    pub(crate) fn new(chunk_bytes: usize) -> Self {
        Self { blob: Vec::new(), entries: Vec::new(), chunk_bytes }
    }

    pub(crate) fn entry(&mut self, entry: Value) {
        self.entries.push(entry);
    }

    /// A regular file in members of its own, one for each chunk.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        self.member(&tar_header(name, content.len()));
        let mut file = json!({"name": name, "type": "reg", "mode": 0o644, "digest": Digest::of(content)});
        if !content.is_empty() {
            file["size"] = json!(content.len());
        }
        for (number, chunk) in content.chunks(self.chunk_bytes).enumerate() {
            let entry = json!({
                "name": name, "type": "chunk", "offset": self.blob.len(), "chunkOffset": number * self.chunk_bytes,
                "chunkSize": if chunk.len() == self.chunk_bytes { chunk.len() } else { 0 }, "chunkDigest": Digest::of(chunk),
            });
            let mut payload = chunk.to_vec();
            if (number + 1) * self.chunk_bytes >= content.len() {
                payload.resize(content.len().next_multiple_of(512) - number * self.chunk_bytes, 0);
            }
            self.member(&payload);
            if number == 0 {
                file.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
                (file["type"], file["chunkOffset"]) = (json!("reg"), json!(0));
                self.entries.push(file.take());
            } else {
                self.entries.push(entry);
            }
        }
        if content.is_empty() {
            self.entries.push(file);
        }
    }

    /// Several small files in one member, told apart by `innerOffset`.
    pub(crate) fn pack(&mut self, files: &[(&str, &[u8])]) {
        let (offset, mut member) = (self.blob.len(), Vec::new());
        for (name, content) in files {
            member.extend(tar_header(name, content.len()));
            self.entries.push(json!({
                "name": name, "type": "reg", "size": content.len(), "mode": 0o600, "offset": offset, "innerOffset": member.len(),
                "digest": Digest::of(content),
            }));
            member.extend_from_slice(content);
            member.resize(member.len().next_multiple_of(512), 0);
        }
        self.member(&member);
    }

    pub(crate) fn toc(&self) -> Value {
        json!({"version": 1, "entries": self.entries})
    }

    pub(crate) fn finish(&self) -> (Vec<u8>, Digest) {
        self.finish_with(&self.toc().to_string())
    }

    /// The blob with another TOC than its own.
    pub(crate) fn finish_with(&self, toc: &str) -> (Vec<u8>, Digest) {
        let mut blob = self.blob.clone();
        let offset = blob.len();
        let mut tar = tar_header("stargz.index.json", toc.len());
        tar.extend_from_slice(toc.as_bytes());
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
        blob.extend(gzip(&[], &tar));
        blob.extend(gzip(format!("SG\x16\0{offset:016x}STARGZ").as_bytes(), b""));
        (blob, Digest::of(toc.as_bytes()))
    }

    fn member(&mut self, bytes: &[u8]) {
        self.blob.extend(gzip(&[], bytes));
    }
}

/// A gzip member of stored blocks.
pub(crate) fn gzip(extra: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, if extra.is_empty() { 0 } else { 4 }, 0, 0, 0, 0, 0, 255];
    if !extra.is_empty() {
        member.extend((extra.len() as u16).to_le_bytes());
        member.extend_from_slice(extra);
    }
    let mut blocks: Vec<_> = bytes.chunks(0xffff).collect();
    if blocks.is_empty() {
        blocks.push(b"");
    }
    for (number, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        member.push(u8::from(number + 1 == blocks.len()));
        member.extend(length.to_le_bytes());
        member.extend((!length).to_le_bytes());
        member.extend_from_slice(block);
    }
    member.extend(crc32(bytes).to_le_bytes());
    member.extend((bytes.len() as u32).to_le_bytes());
    member
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }))
}

fn tar_header(name: &str, bytes: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    let name = &name.as_bytes()[..name.len().min(100)];
    header[..name.len()].copy_from_slice(name);
    header[124..135].copy_from_slice(format!("{bytes:011o}").as_bytes());
    header[156] = b'0';
    header
}
