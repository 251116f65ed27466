//! Leases, which keep what is made under them from the garbage collector.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use super::channel::lease_value;
use super::error::found;
use super::{CALL_TIMEOUT, COLLECT_TIMEOUT, Containerd, Result};
use crate::api::leases::leases_client::LeasesClient;
use crate::api::leases::{CreateRequest, DeleteRequest};
use crate::limits::MAX_LEASE_MS;

/// When the garbage collector may take the lease itself; RFC 3339.
const EXPIRE_LABEL: &str = "containerd.io/gc.expire";

const LONGEST: Duration = Duration::from_millis(MAX_LEASE_MS);

impl Containerd {
    /// Makes the lease `id`, which ends by itself after `expire_after` ([`MAX_LEASE_MS`] at most): what a process that has died held is
    /// not held for ever.
    pub async fn create_lease(&self, id: &str, expire_after: Duration) -> Result<()> {
        lease_value(id)?;
        let expires = Timestamp::from(SystemTime::now() + expire_after.min(LONGEST)).to_string();
        let labels = BTreeMap::from([(EXPIRE_LABEL.to_owned(), expires)]);
        let mut client = LeasesClient::new(self.transport());
        let create = client.create(CreateRequest { id: id.to_owned(), labels });
        self.answer(|| format!("make the lease {id}"), CALL_TIMEOUT, create).await.map(drop)
    }

    /// Ends the lease `id`, which may have ended already. What nothing else refers to is collected: before this returns if
    /// `synchronous`, else later.
    pub async fn delete_lease(&self, id: &str, synchronous: bool) -> Result<()> {
        let mut client = LeasesClient::new(self.transport());
        let delete = client.delete(DeleteRequest { id: id.to_owned(), sync: synchronous });
        found(self.answer(|| format!("end the lease {id}"), deletion_timeout(synchronous), delete).await).map(drop)
    }
}

/// The deadline of a call that deletes something.
pub(super) fn deletion_timeout(synchronous: bool) -> Duration {
    if synchronous { COLLECT_TIMEOUT } else { CALL_TIMEOUT }
}
