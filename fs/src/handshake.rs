//! FUSE_INIT, the first request of a connection: what the kernel offered and what it was answered.
//!
//! The kernel sends it once per connection. A daemon that takes a connection over finds both sides of it in a file and goes through the
//! handshake with the fuse library again, without the kernel.
//!
//! Layout, of include/uapi/linux/fuse.h, in the machine's byte order. Fields past the end of a shorter, older message are zero.
//! ```text
//! request:  0 len u32, 4 opcode u32, 8 unique u64, 16 nodeid u64, 24 uid gid pid u32, 36 lengths u16 x 2,
//!          40 major u32, 44 minor u32, 48 max_readahead u32, 52 flags u32, 56 flags2 u32, 60 unused
//! reply:    0 len u32, 4 error i32, 8 unique u64,
//!          16 major u32, 20 minor u32, 24 max_readahead u32, 28 flags u32, 32 max_background u16, 34 congestion_threshold u16,
//!          36 max_write u32, 40 time_gran u32, 44 max_pages u16, 46 map_alignment u16, 48 flags2 u32, 52 max_stack_depth u32
//! ```

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use fuser::{Filesystem, InitFlags, Session};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair};
use serde::{Deserialize, Serialize};

use crate::error::ConnectionError;
use crate::fuse::session;
use crate::limits;

/// Version of the file's form. Others are not read.
const FILE_VERSION: u32 = 1;
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

const FUSE_INIT: u32 = 26;
const MAJOR: u32 = 7;
/// Up to and without `flags2`, as kernels before 5.17 send it.
const REQUEST_BYTES_MIN: usize = 56;
/// Up to and without `time_gran`, as protocols before 7.23 answer it.
const REPLY_BYTES_MIN: usize = 40;

/// The kernel's FUSE_INIT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InitRequest(Vec<u8>);

/// The answer to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InitReply(Vec<u8>);

/// Both sides of one connection's handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Handshake {
    pub(crate) request: InitRequest,
    pub(crate) reply: InitReply,
    /// The kernel's number of the connection, where it tells.
    pub(crate) connection: Option<u32>,
}

/// What the file holds, as JSON.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    boot_id: String,
    connection: Option<u32>,
    request: Vec<u8>,
    reply: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn set_word(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
}

fn flags(bytes: &[u8], at: usize, at_2: usize) -> InitFlags {
    let low = InitFlags::from_bits_retain(word(bytes, at).into());
    if !low.contains(InitFlags::FUSE_INIT_EXT) {
        return low;
    }
    low | InitFlags::from_bits_retain(u64::from(word(bytes, at_2)) << 32)
}

impl InitRequest {
    /// # Errors
    /// [`ConnectionError::Protocol`] if this is no FUSE_INIT of protocol 7.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, ConnectionError> {
        let is_init = bytes.len() >= REQUEST_BYTES_MIN && word(&bytes, 0) as usize == bytes.len() && word(&bytes, 4) == FUSE_INIT;
        if !is_init || word(&bytes, 40) != MAJOR {
            return Err(ConnectionError::Protocol { opcode: word(&bytes, 4), major: word(&bytes, 40), minor: word(&bytes, 44) });
        }
        Ok(Self(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn flags(&self) -> InitFlags {
        flags(&self.0, 52, 56)
    }

    /// The same request of a kernel that has nothing but what `reply` agreed to.
    pub(crate) fn narrowed_to(&self, reply: &InitReply) -> Self {
        let narrowed = (self.flags() & reply.flags()).bits();
        let mut bytes = self.0.clone();
        set_word(&mut bytes, 52, narrowed as u32);
        set_word(&mut bytes, 56, (narrowed >> 32) as u32);
        Self(bytes)
    }
}

impl InitReply {
    /// # Errors
    /// [`ConnectionError::Refused`] if it is an error, or none that can be used.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, ConnectionError> {
        let errno = (word(&bytes, 4) as i32).wrapping_neg();
        if bytes.len() < REPLY_BYTES_MIN || word(&bytes, 0) as usize != bytes.len() || errno != 0 {
            return Err(ConnectionError::Refused { errno });
        }
        Ok(Self(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn flags(&self) -> InitFlags {
        flags(&self.0, 28, 48)
    }

    fn max_write_bytes(&self) -> u32 {
        word(&self.0, 36)
    }

    /// Whether a session that would have answered with `next` can serve a connection that was answered with this.
    ///
    /// # Errors
    /// [`ConnectionError::Renegotiated`] if the kernel may send what the session does not expect.
    pub(crate) fn check_successor(&self, next: &Self) -> Result<(), ConnectionError> {
        let dropped = (self.flags() & !next.flags()).bits();
        if dropped != 0 || next.max_write_bytes() < self.max_write_bytes() {
            return Err(ConnectionError::Renegotiated {
                dropped_flags: dropped,
                agreed_write_bytes: self.max_write_bytes(),
                write_bytes: next.max_write_bytes(),
            });
        }
        if self != next {
            tracing::debug!(agreed = ?self.0, now = ?next.0, "the connection keeps what an earlier daemon agreed with the kernel");
        }
        Ok(())
    }
}

impl Handshake {
    /// Whether the kernel hands requests out again on demand (Linux 6.9).
    pub(crate) fn can_resend(&self) -> bool {
        self.request.flags().contains(InitFlags::FUSE_HAS_RESEND)
    }

    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`ConnectionError::Saved`].
    pub(crate) fn save(&self, path: &Path) -> Result<(), ConnectionError> {
        let failed = |source| ConnectionError::Saved { path: path.to_owned(), source };
        let saved = Saved {
            version: FILE_VERSION,
            boot_id: boot_id()?,
            connection: self.connection,
            request: self.request.0.clone(),
            reply: self.reply.0.clone(),
        };
        let text = serde_json::to_vec(&saved).map_err(|source| failed(source.into()))?;
        let new = path.with_extension("new");
        // No fsync: the connection does not outlive the boot either.
        File::create(&new).and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&new, path)).map_err(failed)
    }

    /// Reads what [`Self::save`] wrote in this boot for the connection with this number.
    ///
    /// # Errors
    /// [`ConnectionError::Saved`], [`ConnectionError::Malformed`], [`ConnectionError::Foreign`].
    pub(crate) fn load(path: &Path, connection: Option<u32>) -> Result<Self, ConnectionError> {
        let failed = |source| ConnectionError::Saved { path: path.to_owned(), source };
        let mut text = Vec::new();
        File::open(path).and_then(|file| file.take(limits::HANDSHAKE_FILE_BYTES_MAX).read_to_end(&mut text)).map_err(failed)?;
        let saved: Saved = serde_json::from_slice(&text).map_err(|source| ConnectionError::Malformed { path: path.to_owned(), source })?;
        let same = |ours: Option<u32>, theirs: Option<u32>| ours.zip(theirs).is_none_or(|(ours, theirs)| ours == theirs);
        if saved.version != FILE_VERSION || saved.boot_id != boot_id()? || !same(connection, saved.connection) {
            return Err(ConnectionError::Foreign { path: path.to_owned() });
        }
        Ok(Self {
            request: InitRequest::parse(saved.request)?,
            reply: InitReply::parse(saved.reply)?,
            connection: connection.or(saved.connection),
        })
    }
}

fn boot_id() -> Result<String, ConnectionError> {
    let text = fs::read_to_string(BOOT_ID_PATH);
    let text = text.map_err(|source| ConnectionError::Saved { path: BOOT_ID_PATH.into(), source })?;
    Ok(text.trim_end().to_owned())
}

/// Lets a fuse session answer `request`. The session that comes back reads from a socket that nothing more will come from, until
/// [`connect`] gives it a device.
///
/// # Errors
/// [`ConnectionError::Session`], [`ConnectionError::Refused`].
pub(crate) fn introduce<F: Filesystem>(
    filesystem: F,
    threads: usize,
    request: &InitRequest,
) -> Result<(Session<F>, InitReply), ConnectionError> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(session_failed)?;
    send(ours.as_raw_fd(), request.as_bytes(), MsgFlags::MSG_NOSIGNAL).map_err(session_failed)?;
    // A session that wants a second message meets the end instead of waiting for ever.
    shutdown(ours.as_raw_fd(), Shutdown::Write).map_err(session_failed)?;
    let session = session(filesystem, theirs, threads).map_err(ConnectionError::Session)?;
    let mut reply = vec![0; limits::HANDSHAKE_BYTES_MAX];
    let length = recv(ours.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT).map_err(session_failed)?;
    reply.truncate(length);
    Ok((session, InitReply::parse(reply)?))
}

fn session_failed(errno: nix::errno::Errno) -> ConnectionError {
    ConnectionError::Session(errno.into())
}

/// Puts the kernel's device in the place of the socket that `session` was introduced through.
///
/// # Errors
/// [`ConnectionError::Session`].
pub(crate) fn connect<F: Filesystem>(session: &Session<F>, device: &OwnedFd) -> Result<(), ConnectionError> {
    let place = session.as_fd();
    // SAFETY: both descriptors are open. The session owns the number before and after; nothing else knows it, and no thread of the
    // session is running yet.
    let done = unsafe { libc::dup3(device.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
    if done < 0 {
        return Err(ConnectionError::Session(std::io::Error::last_os_error()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(flags: InitFlags) -> InitRequest {
        let mut bytes = vec![0; 104];
        for (at, value) in [(0, 104), (4, FUSE_INIT), (40, MAJOR), (44, 45), (52, flags.bits() as u32), (56, (flags.bits() >> 32) as u32)] {
            set_word(&mut bytes, at, value);
        }
        InitRequest::parse(bytes).unwrap()
    }

    fn reply(flags: InitFlags, max_write_bytes: u32) -> InitReply {
        let mut bytes = vec![0; 80];
        let words = [(0, 80), (16, MAJOR), (20, 40), (28, flags.bits() as u32), (48, (flags.bits() >> 32) as u32), (36, max_write_bytes)];
        for (at, value) in words {
            set_word(&mut bytes, at, value);
        }
        InitReply::parse(bytes).unwrap()
    }

    const EXTENDED: InitFlags = InitFlags::FUSE_INIT_EXT;
    const RESEND: InitFlags = InitFlags::FUSE_HAS_RESEND;
    const PLUS: InitFlags = InitFlags::FUSE_DO_READDIRPLUS;

    #[test]
    fn a_narrowed_request_offers_what_was_agreed() {
        let offered = request(EXTENDED | RESEND | PLUS | InitFlags::FUSE_CACHE_SYMLINKS | InitFlags::FUSE_SECURITY_CTX);
        let narrowed = offered.narrowed_to(&reply(EXTENDED | PLUS | InitFlags::FUSE_SECURITY_CTX, 4096));
        assert_eq!(narrowed.flags(), EXTENDED | PLUS | InitFlags::FUSE_SECURITY_CTX);
        assert_eq!(narrowed.as_bytes().len(), offered.as_bytes().len());
    }

    #[test]
    fn the_upper_flags_count_only_where_they_are_announced() {
        assert_eq!(request(RESEND | PLUS).flags(), PLUS);
    }

    #[test]
    fn what_is_no_first_request_is_refused() {
        let good = request(PLUS).0;
        for (at, value) in [(0, 103), (4, 1), (40, 8)] {
            let mut bytes = good.clone();
            set_word(&mut bytes, at, value);
            assert!(matches!(InitRequest::parse(bytes), Err(ConnectionError::Protocol { .. })), "byte {at}");
        }
        assert!(InitRequest::parse(good[..40].to_vec()).is_err());
        assert!(InitRequest::parse(Vec::new()).is_err());
    }

    #[test]
    fn an_error_is_no_reply() {
        let mut bytes = reply(PLUS, 4096).0;
        set_word(&mut bytes, 4, (-libc::EPROTO) as u32);
        assert!(matches!(InitReply::parse(bytes), Err(ConnectionError::Refused { errno: libc::EPROTO })));
    }

    #[test]
    fn a_successor_may_do_more_but_not_less() {
        let agreed = reply(EXTENDED | PLUS, 1 << 20);
        agreed.check_successor(&agreed).unwrap();
        agreed.check_successor(&reply(EXTENDED | PLUS | RESEND, 2 << 20)).unwrap();
        for less in [reply(EXTENDED, 1 << 20), reply(EXTENDED | PLUS, 4096)] {
            assert!(matches!(agreed.check_successor(&less), Err(ConnectionError::Renegotiated { .. })));
        }
    }

    #[test]
    fn a_saved_handshake_is_read_back_for_its_own_connection_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connection.json");
        let handshake = Handshake { request: request(EXTENDED | RESEND), reply: reply(EXTENDED, 4096), connection: Some(7) };
        handshake.save(&path).unwrap();
        assert_eq!(Handshake::load(&path, Some(7)).unwrap(), handshake);
        assert_eq!(Handshake::load(&path, None).unwrap(), handshake);
        assert!(matches!(Handshake::load(&path, Some(8)), Err(ConnectionError::Foreign { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_handshake_of_another_boot_or_version_is_foreign_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connection.json");
        Handshake { request: request(EXTENDED), reply: reply(EXTENDED, 4096), connection: None }.save(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for changed in [text.replace("\"version\":1", "\"version\":2"), text.replace(&boot_id().unwrap(), "another")] {
            assert_ne!(changed, text);
            fs::write(&path, changed).unwrap();
            assert!(matches!(Handshake::load(&path, None), Err(ConnectionError::Foreign { .. })));
        }
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(Handshake::load(&path, None), Err(ConnectionError::Malformed { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(Handshake::load(&path, None), Err(ConnectionError::Saved { .. })));
    }
}
