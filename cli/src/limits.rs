//! Every bound and default of the program, in one place.

use std::time::Duration;

use crate::progress::Size;

/// Worker threads of a process that serves a mount: decoding and disk I/O happen on the blocking threads.
pub(crate) const WORKER_THREADS: usize = 2;
/// Blocking threads of such a process, made on demand. More than all that may block at a time for long (16 layers that wait for another
/// process, 3 streaming passes, the session), so that what those wait for finds a thread.
pub(crate) const BLOCKING_THREADS_MAX: usize = 32;
/// Pause between two looks at the progress.
pub(crate) const PROGRESS_PERIOD: Duration = Duration::from_millis(200);
/// Pause between two lines of progress where standard error is no terminal.
pub(crate) const PROGRESS_LINE_PERIOD: Duration = Duration::from_secs(5);
/// Longest line of the report pipe.
pub(crate) const REPORT_LINE_BYTES_MAX: u64 = 64 * 1024;
/// Longest error text that goes into a report.
pub(crate) const REPORT_TEXT_BYTES_MAX: usize = 8 * 1024;
/// How long a report may wait for its reader.
pub(crate) const REPORT_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an interrupted mount may take to undo itself before it is killed.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `snap umount` waits for the serving process to end.
pub(crate) const UMOUNT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for `--lazy`, where files may stay open for as long as their users like.
pub(crate) const LAZY_UMOUNT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the control socket's two sides wait for each other.
pub(crate) const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);
/// Callers that the control socket answers at a time.
pub(crate) const CONTROL_CALLERS_MAX: usize = 8;
/// Callers that the control socket lets wait for layers at a time.
pub(crate) const CONTROL_WAITERS_MAX: usize = 64;
/// Longest request to the control socket: the layers of many images at once.
pub(crate) const CONTROL_REQUEST_BYTES_MAX: u64 = 256 * 1024;
/// Longest line of an answer of the control socket.
pub(crate) const CONTROL_ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Pause between two lines that say how far layers are.
pub(crate) const CONTROL_PERIOD: Duration = Duration::from_millis(300);
/// How long whoever waits for layers waits for the next such line.
pub(crate) const CONTROL_SILENCE: Duration = Duration::from_secs(15);
/// Longest record of a mount.
pub(crate) const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// A log file that grows beyond this starts over.
pub(crate) const LOG_BYTES_MAX: u64 = 8 << 20;
/// What is shown of the end of a log.
pub(crate) const LOG_TAIL_BYTES: u64 = 2 * 1024;
/// Largest table of mounts that is read.
pub(crate) const MOUNT_TABLE_BYTES_MAX: u64 = 64 << 20;
/// What is held of a layer's blob while it is hashed.
pub(crate) const HASH_BUFFER_BYTES: usize = 256 * 1024;
/// Longest file that is hashed. A sparse one can claim any length.
pub(crate) const HASHED_FILE_BYTES_MAX: u64 = 1 << 40;
/// Worker threads of the service, where the machine has as many processors.
pub(crate) const SERVICE_WORKER_THREADS_MAX: usize = 8;
/// Blocking threads of the service, made on demand: streaming passes, layers that are opened, records and reads of the disk.
pub(crate) const SERVICE_BLOCKING_THREADS_MAX: usize = 96;
/// Pause between two looks whether the keeper of the mount is alive.
pub(crate) const KEEPER_CHECK_PERIOD: Duration = Duration::from_secs(10);
/// Pause between two paintings of the live lines of a pull, and between two messages of numbers about one layer; docker's.
pub(crate) const PULL_PROGRESS_PERIOD: Duration = Duration::from_millis(100);
/// Words that may wait for the printer of a pull before numbers are dropped. What is never dropped is a handful per layer.
pub(crate) const PRINTER_BACKLOG_MAX: usize = 256;
/// A terminal that is no wider has no room for bars; docker's number.
pub(crate) const BAR_COLUMNS_MIN: u16 = 110;
/// What a terminal is taken for that does not tell its size.
pub(crate) const TERMINAL_SIZE_UNKNOWN: Size = Size { columns: 80, rows: 24 };
/// Longest password or token that is taken. Some clouds' are documents of a few KiB.
pub(crate) const SECRET_BYTES_MAX: usize = 64 * 1024;
/// How long a command that was stopped waits for its last words to be read.
pub(crate) const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
