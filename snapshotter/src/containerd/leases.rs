//! Leases, which keep what is made under them from the garbage collector.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use super::channel::lease_value;
use super::error::found;
use super::{CALL_TIMEOUT, COLLECT_TIMEOUT, Containerd, Result};
use crate::api::leases::leases_client::LeasesClient;
use crate::api::leases::{AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource};
use crate::limits::{MAX_CONTAINERD_MESSAGE_BYTES, MAX_LEASE_MS};

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

    /// The IDs of all leases of the namespace.
    pub async fn leases(&self) -> Result<Vec<String>> {
        let mut client = LeasesClient::new(self.transport()).max_decoding_message_size(MAX_CONTAINERD_MESSAGE_BYTES);
        let list = client.list(ListRequest::default());
        let answer = self.answer(|| "list the leases".to_owned(), CALL_TIMEOUT, list).await?;
        Ok(answer.leases.into_iter().map(|lease| lease.id).collect())
    }

    /// Has the lease `lease` hold a snapshot that is there already.
    pub async fn hold_snapshot(&self, lease: &str, snapshotter: &str, name: &str) -> Result<()> {
        let resource = Resource { id: name.to_owned(), r#type: format!("snapshots/{snapshotter}") };
        let mut client = LeasesClient::new(self.transport());
        let add = client.add_resource(AddResourceRequest { id: lease.to_owned(), resource: Some(resource) });
        self.answer(|| format!("hold the snapshot {name}"), CALL_TIMEOUT, add).await.map(drop)
    }
}

/// The deadline of a call that deletes something.
pub(super) fn deletion_timeout(synchronous: bool) -> Duration {
    if synchronous { COLLECT_TIMEOUT } else { CALL_TIMEOUT }
}
