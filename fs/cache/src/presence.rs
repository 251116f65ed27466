//! The presence map: which chunks of a layer are in its data file, shared by all processes that use it.
//!
//! Opening and replacing happen under the layer's `build` lock, so only one process at a time carries a map over from
//! another boot. Setting a state needs no lock.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::Error;
use crate::boot::BootId;
use crate::layout::Layout;
use crate::limits::MAX_CHUNKS;
use crate::staging::StagedFile;

const MAGIC: &[u8; 8] = b"SNAPPRES";
const VERSION: u32 = 1;

const MAGIC_OFFSET: usize = 0;
const VERSION_OFFSET: usize = MAGIC_OFFSET + MAGIC.len();
const COUNT_OFFSET: usize = VERSION_OFFSET + size_of::<u32>();
const BOOT_ID_OFFSET: usize = COUNT_OFFSET + size_of::<u32>();
const STATES_OFFSET: usize = BOOT_ID_OFFSET + size_of::<BootId>();

/// What is known of a chunk's bytes in the data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkState {
    /// Not there.
    Absent = 0,
    /// There, but to be verified before use: it was verified in another boot.
    Stored = 1,
    /// There, and verified in this boot.
    Verified = 2,
}

impl ChunkState {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Stored,
            2 => Self::Verified,
            _ => Self::Absent,
        }
    }
}

/// A mapped presence map of a known chunk count.
#[derive(Debug)]
pub(crate) struct PresenceMap {
    map: MmapRaw,
    count: u32,
}

impl PresenceMap {
    /// Maps the file at `path` and carries it over to this boot; `None` if there is none that fits `count` chunks.
    pub(crate) fn open(path: &Path, count: u32, boot: BootId) -> Result<Option<Self>, Error> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let size_bytes = file.metadata().map_err(|error| Error::io("stat", path, error))?.len();
        if size_bytes != file_size_bytes(count) {
            return Ok(None);
        }
        let mut header = [0; STATES_OFFSET];
        file.read_exact_at(&mut header, 0).map_err(|error| Error::io("read", path, error))?;
        if header[..BOOT_ID_OFFSET] != header_of(count, boot)[..BOOT_ID_OFFSET] {
            return Ok(None);
        }
        let presence = Self::map(&file, path, count)?;
        if &header[BOOT_ID_OFFSET..] != boot.as_bytes() {
            presence.carry_over(boot);
        }
        Ok(Some(presence))
    }

    /// Makes a map with every chunk in `state` and puts it at `path`, under a new inode: whoever has the old one mapped keeps it.
    pub(crate) fn create(layout: &Layout, path: &Path, count: u32, boot: BootId, state: ChunkState) -> Result<Self, Error> {
        if count > MAX_CHUNKS {
            return Err(Error::TooManyChunks { count, limit: MAX_CHUNKS });
        }
        let mut staged = StagedFile::create(layout)?;
        let mut bytes = header_of(count, boot).to_vec();
        // Written out, not left sparse: a store into a mapped hole of a full file system is a SIGBUS.
        bytes.resize(STATES_OFFSET + count as usize, state as u8);
        staged.write(&bytes)?;
        let file = staged.publish(path)?;
        Self::map(&file, path, count)
    }

    fn map(file: &File, path: &Path, count: u32) -> Result<Self, Error> {
        let map = MmapOptions::new().map_raw(file).map_err(|error| Error::io("map", path, error))?;
        if map.len() < STATES_OFFSET + count as usize {
            return Err(Error::io("map", path, io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Self { map, count })
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The state of `chunk`; absent if there is no such chunk. What was written before the state was set can be read after this.
    pub(crate) fn get(&self, chunk: u32) -> ChunkState {
        self.cell(chunk).map_or(ChunkState::Absent, |cell| ChunkState::from_byte(cell.load(Ordering::Acquire)))
    }

    /// Sets the state of `chunk`, if there is one.
    pub(crate) fn set(&self, chunk: u32, state: ChunkState) {
        if let Some(cell) = self.cell(chunk) {
            cell.store(state as u8, Ordering::Release);
        }
    }

    /// Makes a stored chunk verified. One that became absent meanwhile stays so.
    pub(crate) fn promote(&self, chunk: u32) {
        if let Some(cell) = self.cell(chunk) {
            // Failing means that it is absent or verified already.
            let _ = cell.compare_exchange(ChunkState::Stored as u8, ChunkState::Verified as u8, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Takes "verified" back to "stored". The boot ID comes last: killed in between, the next opener does it again. Written in
    /// part it equals no boot's.
    fn carry_over(&self, boot: BootId) {
        for chunk in 0..self.count {
            if self.get(chunk) == ChunkState::Verified {
                self.set(chunk, ChunkState::Stored);
            }
        }
        for (offset, byte) in (BOOT_ID_OFFSET..).zip(boot.as_bytes()) {
            self.byte(offset).store(*byte, Ordering::Release);
        }
    }

    fn cell(&self, chunk: u32) -> Option<&AtomicU8> {
        (chunk < self.count).then(|| self.byte(STATES_OFFSET + chunk as usize))
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        assert!(offset < self.map.len());
        // SAFETY: the byte is inside the mapping, which lives as long as `self`, is writable, and is only ever accessed as
        // atomics, by this process and by others.
        unsafe { AtomicU8::from_ptr(self.map.as_mut_ptr().add(offset)) }
    }
}

fn file_size_bytes(count: u32) -> u64 {
    STATES_OFFSET as u64 + u64::from(count)
}

fn header_of(count: u32, boot: BootId) -> [u8; STATES_OFFSET] {
    let mut header = [0; STATES_OFFSET];
    header[MAGIC_OFFSET..VERSION_OFFSET].copy_from_slice(MAGIC);
    header[VERSION_OFFSET..COUNT_OFFSET].copy_from_slice(&VERSION.to_le_bytes());
    header[COUNT_OFFSET..BOOT_ID_OFFSET].copy_from_slice(&count.to_le_bytes());
    header[BOOT_ID_OFFSET..].copy_from_slice(boot.as_bytes());
    header
}
