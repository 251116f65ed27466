//! zstd's streaming decoder, one step at a time, with the ends of frames.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use crate::error::IndexError;
use crate::limits;

/// What one step did.
pub(crate) struct Step {
    pub(crate) consumed: usize,
    pub(crate) produced: usize,
    /// The input is now behind a frame, all of which was written. What follows is the next frame.
    pub(crate) ended_frame: bool,
}

/// A decoder whose window, and so whose memory, is bounded.
pub(crate) fn decoder() -> Result<DCtx<'static>, IndexError> {
    let mut decoder = DCtx::try_create().ok_or_else(|| IndexError::Io(std::io::ErrorKind::OutOfMemory.into()))?;
    decoder.set_parameter(DParameter::WindowLogMax(limits::ZSTD_WINDOW_LOG_MAX)).map_err(|code| wrong(0, code))?;
    Ok(decoder)
}

/// Decodes from `input` to `output` until one of them or a frame ends. `Err` is zstd's code.
pub(crate) fn step(decoder: &mut DCtx<'_>, input: &[u8], output: &mut [u8]) -> Result<Step, usize> {
    let mut from = InBuffer::around(input);
    let mut to = OutBuffer::around(output);
    let hint = decoder.decompress_stream(&mut to, &mut from)?;
    Ok(Step { consumed: from.pos(), produced: to.pos(), ended_frame: hint == 0 })
}

/// zstd's code as an error about the blob's byte `at`.
pub(crate) fn wrong(at: u64, code: usize) -> IndexError {
    let window = format!("; a window over {} MiB is refused", 1u64 << (limits::ZSTD_WINDOW_LOG_MAX - 20));
    let name = get_error_name(code);
    let why = if name.contains("too much memory") { format!("{name}{window}") } else { name.to_owned() };
    IndexError::Compressed { format: "zstd", at, why }
}
