//! What Nova says of a server.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::api::ErrorKind;

/// A server.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::openstack) struct Server {
    pub(in crate::openstack) id: String,
    pub(in crate::openstack) name: String,
    /// Such as `ACTIVE`.
    pub(in crate::openstack) status: String,
    /// Such as `spawning`.
    pub(in crate::openstack) task: Option<String>,
    /// Why it is in the state `ERROR`.
    pub(in crate::openstack) fault: Option<String>,
    pub(in crate::openstack) metadata: BTreeMap<String, String>,
    /// Its addresses by the names of their networks.
    pub(in crate::openstack) addresses: BTreeMap<String, Vec<Address>>,
    /// The addresses that somebody has written down for it.
    pub(in crate::openstack) access_ipv4: Option<String>,
    pub(in crate::openstack) access_ipv6: Option<String>,
    pub(in crate::openstack) host_id: Option<String>,
    pub(in crate::openstack) zone: Option<String>,
    pub(in crate::openstack) size: SizeOf,
    /// The ids of its volumes.
    pub(in crate::openstack) volumes: Vec<String>,
}

/// An address of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::openstack) struct Address {
    pub(in crate::openstack) address: String,
    /// 4 or 6.
    pub(in crate::openstack) version: u64,
    /// Whether it is a floating IP or one of its port; not every cloud tells.
    pub(in crate::openstack) floating: Option<bool>,
    pub(in crate::openstack) mac: Option<String>,
}

/// How large a server is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::openstack) enum SizeOf {
    #[default]
    Unknown,
    /// So many cores, so many MiB of memory.
    Is { cores: i64, ram: i64 },
    /// That of the flavor with this id.
    Flavor(String),
}

impl Server {
    pub(super) fn read(json: &Json) -> Option<Self> {
        let text = |key: &str| {
            let text = json.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let object = |key: &str| json.get(key).and_then(Json::as_object).into_iter().flatten();
        let addresses =
            |list: &Json| list.as_array().into_iter().flatten().filter_map(Address::read).collect();
        let volumes = json.get("os-extended-volumes:volumes_attached").and_then(Json::as_array);
        let volume = |volume: &Json| Some(volume.get("id")?.as_str()?.to_owned());
        Some(Self {
            id: text("id")?,
            name: text("name").unwrap_or_default(),
            status: text("status").unwrap_or_default().to_ascii_uppercase(),
            task: text("OS-EXT-STS:task_state"),
            fault: json.pointer("/fault/message").and_then(Json::as_str).map(|said| said.trim().to_owned()),
            metadata: object("metadata")
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            addresses: object("addresses").map(|(name, list)| (name.clone(), addresses(list))).collect(),
            access_ipv4: text("accessIPv4"),
            access_ipv6: text("accessIPv6"),
            host_id: text("hostId"),
            zone: text("OS-EXT-AZ:availability_zone"),
            size: json.get("flavor").map(SizeOf::read).unwrap_or_default(),
            volumes: volumes.into_iter().flatten().filter_map(volume).collect(),
        })
    }

    /// Whether it is there no more, for all but Nova's own records.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.status.as_str(), "DELETED" | "SOFT_DELETED")
    }

    /// Its floating IPs, as far as Nova has heard of them.
    pub(in crate::openstack) fn floating(&self) -> impl Iterator<Item = &Address> {
        self.addresses.values().flatten().filter(|address| address.floating == Some(true))
    }

    /// What its state is, for people.
    pub(in crate::openstack) fn describe(&self) -> String {
        let task = self.task.as_ref().map_or_else(String::new, |task| format!(" ({task})"));
        let fault = self.fault.as_ref().map_or_else(String::new, |fault| format!(": {fault}"));
        format!("{}{task}{fault}", self.status)
    }

    /// What is to be done about its fault: one of a quota needs room, any other another attempt.
    pub(in crate::openstack) fn fault_kind(&self) -> ErrorKind {
        let of_quota = self.fault.as_ref().is_some_and(|fault| fault.to_ascii_lowercase().contains("quota"));
        if of_quota { ErrorKind::Quota } else { ErrorKind::Transient }
    }
}

impl Address {
    fn read(json: &Json) -> Option<Self> {
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        Some(Self {
            address: text("addr")?.to_owned(),
            version: json.get("version").and_then(Json::as_u64).unwrap_or(4),
            floating: text("OS-EXT-IPS:type").map(|kind| kind == "floating"),
            mac: text("OS-EXT-IPS-MAC:mac_addr").map(str::to_owned),
        })
    }
}

impl SizeOf {
    fn read(json: &Json) -> Self {
        let number = |key: &str| json.get(key).and_then(Json::as_i64);
        match (number("vcpus"), number("ram"), json.get("id").and_then(Json::as_str)) {
            (Some(cores), Some(ram), _) => Self::Is { cores, ram },
            (_, _, Some(id)) => Self::Flavor(id.to_owned()),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_quota_is_one_and_any_other_is_tried_again() {
        for (fault, expected) in [
            (
                Some("VolumeSizeExceedsAvailableQuota: Requested volume exceeds allowed quota."),
                ErrorKind::Quota,
            ),
            (Some("Quota exceeded for resources: ['port']."), ErrorKind::Quota),
            (Some("No valid host was found. There are not enough hosts available."), ErrorKind::Transient),
            (Some("Exceeded maximum number of retries."), ErrorKind::Transient),
            (None, ErrorKind::Transient),
        ] {
            let server = Server { fault: fault.map(str::to_owned), ..Server::default() };
            assert_eq!(server.fault_kind(), expected, "{fault:?}");
        }
    }
}
