//! The rules of the ability to offer machines.

use std::collections::BTreeSet;

use super::require;
use crate::api::Machines;

pub(super) fn check(machines: &dyn Machines) {
    let all = machines.machines();
    let identities: BTreeSet<_> = all.iter().map(|machine| machine.identity()).collect();
    require(identities.len() == all.len(), "no two machines have the same identity");
    for machine in all {
        require(!machine.host.is_empty(), "a machine has a host");
        require(!machine.pool.is_empty(), "a machine is in a pool");
        require(!machine.labels.is_empty(), "a machine has a label");
        require(machine.connection_port != 0, "a machine has a port");
        require(!machine.timeout.is_zero(), "a machine may take some time to answer");
    }
    require(machines.machines() == all, "the machines change with the configuration only");
}
