//! Inflate with block boundaries: the one file with `unsafe`, because zlib-rs shows `Z_BLOCK` and bit priming in its C interface only.
//!
//! The wrapper owns the stream and lends it slices for the length of one call; no pointer outlives the borrow that it came from.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

use libz_rs_sys as z;

use crate::limits;

/// What surrounds the deflate data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrap {
    /// A gzip member: header and trailer are read, CRC-32 and length are checked.
    Gzip,
    /// Nothing.
    Raw,
}

impl Wrap {
    /// zlib's `windowBits`: 15, and 16 for gzip, or negated for raw.
    fn window_bits(self) -> c_int {
        match self {
            Self::Gzip => 15 + 16,
            Self::Raw => -15,
        }
    }
}

/// Why one step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The input is used up or the output is full.
    Buffer,
    /// Neither a byte was read nor one written.
    Stuck,
    /// Between two deflate blocks, or between a header and the first; `unused_bits` of the consumed bytes belong to what comes next.
    Block {
        /// Under 64.
        unused_bits: u8,
        /// The block that ended was the member's last.
        last: bool,
    },
    /// Behind the trailer of a gzip member, or behind the last block of a raw stream.
    End,
}

/// What one step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) consumed: usize,
    pub(crate) produced: usize,
    pub(crate) stop: Stop,
}

/// A decoder of one gzip member or raw deflate stream at a time.
pub(crate) struct Inflate {
    /// Boxed, because zlib forbids a stream to move.
    stream: Box<z::z_stream>,
}

impl Inflate {
    /// `Err` holds zlib's words, here and below.
    pub(crate) fn new(wrap: Wrap) -> Result<Self, String> {
        let mut stream = Box::new(z::z_stream::default());
        // SAFETY: the stream is a valid, exclusively borrowed z_stream whose allocator `default` has set; the version is a C string
        // of the library itself and the size is the struct's.
        let code = unsafe { z::inflateInit2_(&mut *stream, wrap.window_bits(), z::zlibVersion(), size_of::<z::z_stream>() as c_int) };
        if code == z::Z_OK { Ok(Self { stream }) } else { Err(format!("inflateInit2 gave {code}")) }
    }

    /// Starts over, as [`Inflate::new`] would, and keeps the memory.
    pub(crate) fn reset(&mut self, wrap: Wrap) -> Result<(), String> {
        // SAFETY: the stream was initialised in `new` and is ended in `drop` only.
        let code = unsafe { z::inflateReset2(&mut *self.stream, wrap.window_bits()) };
        self.check(code)
    }

    /// Puts `bits` (at most 7) bits of `value` before the input of a raw stream that has read nothing yet.
    pub(crate) fn prime(&mut self, bits: u8, value: u8) -> Result<(), String> {
        // SAFETY: as in `reset`.
        let code = unsafe { z::inflatePrime(&mut *self.stream, c_int::from(bits), c_int::from(value)) };
        self.check(code)
    }

    /// Gives a raw stream the bytes that came before it.
    pub(crate) fn set_dictionary(&mut self, window: &[u8]) -> Result<(), String> {
        let bytes = u32::try_from(window.len()).map_err(|_| "the window is too long".to_owned())?;
        // SAFETY: as in `reset`; pointer and length are those of one slice, which is only read during the call.
        let code = unsafe { z::inflateSetDictionary(&mut *self.stream, window.as_ptr(), bytes) };
        self.check(code)
    }

    /// The last 32 KiB of output since the last reset, or as many as there were.
    pub(crate) fn dictionary(&self) -> Vec<u8> {
        let mut window = vec![0; limits::WINDOW_BYTES];
        let mut bytes = 0;
        // SAFETY: as in `reset`; the vector has the 32 KiB that zlib may write at most, and the length has a place of its own.
        let code = unsafe { z::inflateGetDictionary(&*self.stream, window.as_mut_ptr(), &mut bytes) };
        window.truncate(if code == z::Z_OK { bytes as usize } else { 0 });
        window
    }

    /// Decodes from `input` to `output` until one of them ends, a member ends or, where `stop_at_blocks`, a block ends.
    pub(crate) fn step(&mut self, input: &[u8], output: &mut [u8], stop_at_blocks: bool) -> Result<Step, String> {
        let (given, room) = (clipped(input.len()), clipped(output.len()));
        let flush = if stop_at_blocks { z::Z_BLOCK } else { z::Z_NO_FLUSH };
        let stream = &mut *self.stream;
        (stream.next_in, stream.avail_in) = (input.as_ptr(), given);
        (stream.next_out, stream.avail_out) = (output.as_mut_ptr(), room);
        // SAFETY: as in `reset`; both pointers come from slices of at least the given lengths that are borrowed for the whole call,
        // the output exclusively. Afterwards the pointers are overwritten before they can be used again.
        let code = unsafe { z::inflate(stream, flush) };
        let (consumed, produced) = ((given - stream.avail_in) as usize, (room - stream.avail_out) as usize);
        (stream.next_in, stream.avail_in) = (std::ptr::null(), 0);
        (stream.next_out, stream.avail_out) = (std::ptr::null_mut(), 0);
        let data_type = stream.data_type;
        let stop = match code {
            z::Z_STREAM_END => Stop::End,
            z::Z_BUF_ERROR => Stop::Stuck,
            z::Z_OK if data_type & 128 != 0 => Stop::Block { unused_bits: (data_type & 63) as u8, last: data_type & 64 != 0 },
            z::Z_OK => Stop::Buffer,
            code => return Err(self.message(code)),
        };
        Ok(Step { consumed, produced, stop })
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == z::Z_OK { Ok(()) } else { Err(self.message(code)) }
    }

    fn message(&self, code: c_int) -> String {
        if code == z::Z_NEED_DICT || self.stream.msg.is_null() {
            return format!("inflate gave {code}");
        }
        // SAFETY: zlib points `msg` at a static C string, and it is not null.
        let message = unsafe { CStr::from_ptr(self.stream.msg) };
        message.to_string_lossy().into_owned()
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: the stream was initialised in `new`, and nothing can use it after this.
        unsafe { z::inflateEnd(&mut *self.stream) };
    }
}

/// zlib counts a buffer's bytes in 32 bits; what is beyond waits for the next call.
fn clipped(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
