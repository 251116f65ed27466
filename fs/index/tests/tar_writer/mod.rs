//! Writes tar members byte by byte, malformed ones too.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) const BLOCK: usize = 512;
pub(crate) const USTAR: &[u8; 8] = b"ustar\x0000";
pub(crate) const GNU: &[u8; 8] = b"ustar  \0";
pub(crate) const V7: &[u8; 8] = &[0; 8];

/// One header's fields. Numbers are written as octal text unless `raw` says otherwise.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) typeflag: u8,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    /// The header's size field; the data's length unless given.
    pub(crate) size: Option<u64>,
    pub(crate) device: (u64, u64),
    pub(crate) magic: &'static [u8; 8],
    /// Bytes that are put at an offset of the header before it is summed.
    pub(crate) raw: Vec<(usize, Vec<u8>)>,
    /// Sum signed bytes.
    pub(crate) signed_sum: bool,
}

pub(crate) fn member(name: &str, typeflag: u8) -> Member {
    Member {
        name: name.as_bytes().to_vec(),
        typeflag,
        link: Vec::new(),
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: 1_700_000_000,
        size: None,
        device: (0, 0),
        magic: USTAR,
        raw: Vec::new(),
        signed_sum: false,
    }
}

impl Member {
    pub(crate) fn link(mut self, link: &str) -> Self {
        self.link = link.as_bytes().to_vec();
        self
    }

    pub(crate) fn raw(mut self, at: usize, bytes: &[u8]) -> Self {
        self.raw.push((at, bytes.to_vec()));
        self
    }

    pub(crate) fn header(&self, data_bytes: usize) -> [u8; BLOCK] {
        let mut block = [0u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0", self.uid).as_bytes());
        put(116, format!("{:07o}\0", self.gid).as_bytes());
        put(124, format!("{:011o}\0", self.size.unwrap_or(data_bytes as u64)).as_bytes());
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[self.typeflag]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, self.magic);
        put(329, format!("{:07o}\0", self.device.0).as_bytes());
        put(337, format!("{:07o}\0", self.device.1).as_bytes());
        for (at, bytes) in &self.raw {
            put(*at, bytes);
        }
        let sum: i64 = block.iter().map(|&byte| if self.signed_sum { i64::from(byte as i8) } else { i64::from(byte) }).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

#[derive(Default, Clone)]
pub(crate) struct TarWriter {
    pub(crate) bytes: Vec<u8>,
}

impl TarWriter {
    pub(crate) fn add(&mut self, member: &Member, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&member.header(data.len()));
        self.raw(data)
    }

    /// Bytes, padded to a block.
    pub(crate) fn raw(&mut self, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(crate) fn file(&mut self, name: &str, data: &[u8]) -> &mut Self {
        self.add(&member(name, b'0'), data)
    }

    pub(crate) fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        self.add(&member("PaxHeaders/x", b'x'), &pax_records(records))
    }

    pub(crate) fn end(&mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        std::mem::take(&mut self.bytes)
    }
}

pub(crate) fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (keyword, value) in records {
        let body = keyword.len() + value.len() + 3;
        let length = (1..).map(|digits| body + digits).find(|length| length.to_string().len() + body == *length).unwrap();
        bytes.extend_from_slice(format!("{length} {keyword}=").as_bytes());
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}
