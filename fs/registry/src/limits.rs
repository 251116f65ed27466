//! Every limit of this crate. Fixed ones are constants; those that a test or an operator may want otherwise are in [`Limits`].

use std::time::Duration;

/// A manifest or an image index larger than this is refused (the distribution specification's own bound).
pub const DOCUMENT_MAX_BYTES: u64 = 4 << 20;
/// An image configuration, or any other blob that is read whole into memory, larger than this is refused.
pub const SMALL_BLOB_MAX_BYTES: u64 = 8 << 20;
/// The largest range [`Blob::read`](crate::Blob::read) gives in one piece; more has to be streamed.
pub const READ_MAX_BYTES: u64 = 64 << 20;
/// More layers than this in one manifest are refused. overlayfs stops at 500, registries in use at 127.
pub const LAYERS_MAX: usize = 1024;
/// More entries than this in one image index are refused.
pub const INDEX_ENTRIES_MAX: usize = 4096;
/// Image indexes inside image indexes: how many may be followed, the outermost included.
pub const INDEX_DEPTH_MAX: usize = 4;

/// A reference longer than this is refused before it is looked at.
pub const REFERENCE_MAX_BYTES: usize = 4096;
/// A repository name longer than this is refused (the reference grammar's own bound).
pub const REPOSITORY_MAX_BYTES: usize = 255;
/// A tag longer than this is refused (the reference grammar's own bound).
pub const TAG_MAX_BYTES: usize = 128;

/// More tags than this in one repository are refused.
pub const TAGS_MAX: usize = 100_000;
/// More pages than this of one list of tags are refused. A registry may give as few as one tag in each.
pub(crate) const TAGS_PAGES_MAX: usize = 10_000;
/// A page of a list of tags larger than this is refused.
pub(crate) const TAGS_PAGE_MAX_BYTES: u64 = 8 << 20;
/// A list of tags whose pages are larger than this all together is refused.
pub(crate) const TAGS_LIST_MAX_BYTES: u64 = 32 << 20;

/// An answer of a token server larger than this is refused.
pub(crate) const TOKEN_ANSWER_MAX_BYTES: u64 = 1 << 20;
/// The lifetime of a token whose server names none (the token specification's own default).
pub(crate) const TOKEN_LIFETIME_DEFAULT: Duration = Duration::from_secs(60);
/// A token is renewed this long before it ends, or at nine tenths of a life shorter than ten times this.
pub(crate) const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// `WWW-Authenticate` headers longer than this, all together, are not parsed.
pub(crate) const CHALLENGE_MAX_BYTES: usize = 16 << 10;
/// A redirect target whose expiry is visible is not used in its last seconds.
pub(crate) const REDIRECT_MARGIN: Duration = Duration::from_secs(10);
/// A host that answered 200 to a range request is not asked again for a far range of the same blob for this long.
pub(crate) const NO_RANGES_MEMORY: Duration = Duration::from_secs(60);
/// How many documents a registry source keeps between `resolve` and `document`.
pub(crate) const RECENT_DOCUMENTS: usize = 4;
/// How much of an error answer's body is read for its message.
pub(crate) const ERROR_BODY_MAX_BYTES: u64 = 16 << 10;
/// How much of a registry's own error message is shown.
pub(crate) const ERROR_MESSAGE_MAX_CHARS: usize = 200;

/// A docker configuration file larger than this is refused.
pub(crate) const DOCKER_CONFIG_MAX_BYTES: u64 = 1 << 20;
/// How long another program that writes the docker configuration is waited for.
pub(crate) const CONFIG_LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
pub(crate) const CONFIG_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// More symbolic links than this on the way to the docker configuration are refused (the kernel's own bound).
pub(crate) const CONFIG_SYMLINKS_MAX: usize = 40;
/// A credential helper that prints more than this is killed.
pub(crate) const HELPER_OUTPUT_MAX_BYTES: u64 = 64 << 10;
/// A `hosts.toml`, certificate or key file larger than this is refused.
pub(crate) const HOSTS_FILE_MAX_BYTES: u64 = 1 << 20;
/// More hosts than this in one `hosts.toml` are refused.
pub(crate) const HOSTS_MAX: usize = 64;
/// More certificate files than this in one directory are refused.
pub(crate) const CERTIFICATE_FILES_MAX: usize = 64;

/// How much of a blob in an OCI layout is read from disk at once.
pub(crate) const LAYOUT_READ_BYTES: u64 = 1 << 20;

/// Deadlines, retries and rates. [`Limits::default`] is what the product runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long making a connection may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a server may take from the request to the head of its answer.
    pub response_timeout: Duration,
    /// How long a body may give no byte at all.
    pub stall_timeout: Duration,
    /// The time over which a body's rate is judged. Only time spent waiting for the server counts.
    pub rate_window: Duration,
    /// A body slower than this over `rate_window` is broken off and resumed on a new connection. 0 turns this off.
    pub min_rate_bytes_per_s: u64,
    /// How many times every host is asked, one after the other, before a request fails.
    pub attempts: u32,
    /// The pause before the second attempt; doubles with each further one. Between half and all of it is waited.
    pub backoff_first: Duration,
    /// The longest pause between attempts that no server asked for.
    pub backoff_max: Duration,
    /// The longest `Retry-After` that is obeyed. A server that asks for more is given up.
    pub retry_after_max: Duration,
    /// How long one request may take with all its attempts, until bytes arrive. Each `progress_bytes` begin it anew.
    pub chain_deadline: Duration,
    /// How long a whole list of tags may take, all its pages and attempts together.
    pub listing_deadline: Duration,
    /// So many bytes of a body count as progress: attempts and deadline begin anew.
    pub progress_bytes: u64,
    /// How many requests to one host, their bodies included, may be under way at a time.
    pub connections_per_host: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// If a server sends a whole blob instead of a range, so many bytes are read and dropped to get to the range.
    pub skip_max_bytes: u64,
    /// How many redirects one request follows.
    pub redirects: usize,
    /// How long a `docker-credential-*` program may take before it is killed.
    pub helper_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(15),
            rate_window: Duration::from_secs(15),
            min_rate_bytes_per_s: 1 << 10,
            attempts: 5,
            backoff_first: Duration::from_millis(200),
            backoff_max: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(30),
            chain_deadline: Duration::from_secs(90),
            listing_deadline: Duration::from_secs(300),
            progress_bytes: 64 << 10,
            connections_per_host: 16,
            idle_timeout: Duration::from_secs(60),
            skip_max_bytes: 1 << 20,
            redirects: 5,
            helper_timeout: Duration::from_secs(20),
        }
    }
}
