//! Who asks for nodes, as Zuul does: makes an ephemeral request, takes the nodes' locks when it is fulfilled, uses the
//! nodes and gives them back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{NODES, REQUESTS, SOON};
use crate::support::{Sandbox, ZkClient};

pub(crate) struct Requestor {
    pub(crate) zk: ZkClient,
    /// The contenders of the nodes that it has locked.
    locks: RefCell<BTreeMap<String, String>>,
    /// How long it waits for anything.
    patience: Duration,
}

impl Requestor {
    pub(crate) fn new(sandbox: &Sandbox<'_>) -> Requestor {
        Requestor::patient(sandbox, SOON)
    }

    /// One that waits so long.
    pub(crate) fn patient(sandbox: &Sandbox<'_>, patience: Duration) -> Requestor {
        Requestor { zk: sandbox.zk(), locks: RefCell::default(), patience }
    }

    /// Asks for nodes of these labels; `more` are further keys of the record. Answers the request's id.
    pub(crate) fn ask_with(&self, labels: &[&str], more: Value) -> String {
        let mut record = json!({
            "state": "requested", "state_time": 1.0, "declined_by": [], "node_types": labels, "nodes": [],
            "reuse": true, "requestor": "zuul", "requestor_data": null, "provider": null,
            "relative_priority": 0, "event_id": "event", "created_time": 1.0, "tenant_name": "tenant",
        });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let priority = record["priority"].as_str().unwrap_or("200").to_owned();
        record.as_object_mut().unwrap().remove("priority");
        let path =
            self.zk.create_ephemeral_sequential(&format!("{REQUESTS}/{priority}-"), record.to_string());
        path.rsplit('/').next().unwrap().to_owned()
    }

    pub(crate) fn ask(&self, labels: &[&str]) -> String {
        self.ask_with(labels, json!({}))
    }

    /// Withdraws a request.
    pub(crate) fn withdraw(&self, id: &str) {
        self.zk.delete(&format!("{REQUESTS}/{id}"));
    }

    /// The request's record, if it is still there.
    pub(crate) fn request(&self, id: &str) -> Option<Value> {
        self.zk.get_json(&format!("{REQUESTS}/{id}"))
    }

    /// Waits until the request is in a state, and answers its record.
    #[track_caller]
    pub(crate) fn wait(&self, id: &str, state: &str) -> Value {
        self.zk
            .wait_for(&format!("{REQUESTS}/{id}"), self.patience, |record| {
                record.is_some_and(|record| record["state"] == state)
            })
            .unwrap()
    }

    /// Waits until the request is fulfilled, and answers the ids of its nodes.
    #[track_caller]
    pub(crate) fn wait_nodes(&self, id: &str) -> Vec<String> {
        let record = self.wait(id, "fulfilled");
        record["nodes"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// Takes the nodes of a fulfilled request, which is over with that.
    #[track_caller]
    pub(crate) fn accept(&self, id: &str) -> Vec<String> {
        let nodes = self.wait_nodes(id);
        for node in &nodes {
            let lock = self.zk.hold_lock(&format!("{NODES}/{node}/lock"));
            self.locks.borrow_mut().insert(node.clone(), lock);
            self.set_state(node, "in-use");
        }
        self.withdraw(id);
        nodes
    }

    /// The job on a node is over.
    pub(crate) fn give_back(&self, node: &str) {
        self.set_state(node, "used");
        let lock = self.locks.borrow_mut().remove(node).unwrap();
        self.zk.delete(&lock);
    }

    pub(crate) fn node(&self, id: &str) -> Option<Value> {
        self.zk.get_json(&format!("{NODES}/{id}"))
    }

    pub(crate) fn set_state(&self, node: &str, state: &str) {
        let mut record = self.node(node).unwrap();
        record["state"] = json!(state);
        record["state_time"] = json!(crate::launcher::unix_now());
        self.zk.set_json(&format!("{NODES}/{node}"), &record);
    }

    #[track_caller]
    pub(crate) fn wait_gone(&self, node: &str) {
        self.zk.wait_for(&format!("{NODES}/{node}"), self.patience, |record| record.is_none());
    }
}
