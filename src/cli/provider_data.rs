//! `info` and `erase`: what ZooKeeper has about a provider. It may be gone from the configuration; that is
//! what these commands are for. The words are the original's.

use std::collections::BTreeMap;
use std::io::BufRead as _;

use serde::Serialize;
use serde_json::Value;

use super::args::Format;
use super::connection::Connection;
use super::failure::Failure;
use super::listing::left_out;
use super::output;
use crate::config::Config;
use crate::listing::{Row, json, table};
use crate::model::NodeRecord;
use crate::zk::UploadPlace;

#[derive(Debug, PartialEq, Eq, Serialize)]
struct BuildRow {
    image: String,
    id: String,
    upload_ids: Vec<String>,
}

impl Row for BuildRow {
    const HEADER: &'static [&'static str] = &["Image Name", "Build ID", "Upload IDs"];

    fn cells(&self, _now: f64) -> Vec<String> {
        vec![self.image.clone(), self.id.clone(), self.upload_ids.join(",")]
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct NodeRow {
    id: String,
    server_id: Value,
}

impl Row for NodeRow {
    const HEADER: &'static [&'static str] = &["ID", "Server ID"];

    fn cells(&self, _now: f64) -> Vec<String> {
        let server_id = match &self.server_id {
            // Python's word.
            Value::Null => "None".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![self.id.clone(), server_id]
    }
}

/// What ZooKeeper has about a provider.
struct Found {
    places: Vec<UploadPlace>,
    nodes: Vec<(String, NodeRecord)>,
}

impl Found {
    /// Looks for it. A name that nobody knows is told to be a mistake.
    fn read(config: &Config, connection: &Connection, provider: &str) -> Result<Self, Failure> {
        let mut places = connection.images.upload_places()?;
        places.retain(|place| place.provider == provider);
        let nodes = connection.nodes().of_provider(provider, &mut left_out)?;
        if places.is_empty() && nodes.is_empty() && !config.providers.contains_key(provider) {
            let file = config.file.display();
            let why = format!(
                "the provider '{provider}' is neither configured in {file} nor has data in ZooKeeper"
            );
            return Err(Failure::because(why));
        }
        Ok(Self { places, nodes })
    }
}

#[derive(Serialize)]
struct Info<'a> {
    provider: &'a str,
    builds: Vec<BuildRow>,
    nodes: Vec<NodeRow>,
}

/// Shows it.
pub(super) fn show(
    config: &Config,
    connection: &Connection,
    provider: &str,
    format: Format,
) -> Result<(), Failure> {
    let Found { places, nodes } = Found::read(config, connection, provider)?;
    // A build counts from the time on when it was first tried to upload it.
    let of_build = |place: &UploadPlace| ((place.image.clone(), place.build.clone()), Vec::new());
    let mut builds: BTreeMap<_, Vec<String>> = places.iter().map(of_build).collect();
    let uploads = connection.images.read_uploads_at(places, &mut left_out)?;
    for found in uploads {
        builds.entry((found.image, found.build)).or_default().push(found.upload.id);
    }
    let build = |((image, id), mut upload_ids): ((String, String), Vec<String>)| {
        upload_ids.sort();
        BuildRow { image, id, upload_ids }
    };
    let builds = builds.into_iter().map(build).collect();
    let node = |(id, record): (String, NodeRecord)| NodeRow { id, server_id: record.external_id };
    let nodes = nodes.into_iter().map(node).collect();
    output::print(&render(&Info { provider, builds, nodes }, format))
}

fn render(info: &Info<'_>, format: Format) -> String {
    let Info { provider, builds, nodes } = info;
    match format {
        Format::Json => json(info),
        // Nothing in them has an age.
        Format::Table => format!(
            "ZooKeeper data for provider {provider}\n\nImage data:\n{}\nNodes:\n{}",
            table(builds, 0.0),
            table(nodes, 0.0)
        ),
    }
}

/// Removes it, after a question unless that is not wanted.
pub(super) fn erase(
    config: &Config,
    connection: &Connection,
    provider: &str,
    force: bool,
) -> Result<(), Failure> {
    let found = Found::read(config, connection, provider)?;
    if !force && !confirmed(provider)? {
        return output::print("Aborting. No data erased.\n");
    }
    // Nobody reading on is no reason to leave half of it.
    let told = output::print(&format!("Erasing build data for {provider}...\n"));
    connection.images.erase_uploads(found.places)?;
    let told = told.and(output::print(&format!("Erasing node data for {provider}...\n")));
    let nodes = connection.nodes();
    for (id, _) in found.nodes {
        nodes.erase(&id)?;
    }
    told
}

fn confirmed(provider: &str) -> Result<bool, Failure> {
    output::print(&format!(
        "\nWARNING! This action is not reversible!\nErase ZooKeeper data for provider {provider}? [N/y] "
    ))?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(0) => {
            Err(Failure::because("no answer on standard input, and no data erased; --force does not ask"))
        }
        Ok(_) => Ok(answer.trim_end_matches(['\r', '\n']).eq_ignore_ascii_case("y")),
        Err(error) => Err(Failure::because(format!("cannot read the answer: {error}; no data erased"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_data_of_a_provider_are_two_tables_or_one_object() {
        let build = |upload_ids: &[&str]| BuildRow {
            image: "debian".to_owned(),
            id: "aa".to_owned(),
            upload_ids: upload_ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let node = |id: &str, server_id| NodeRow { id: id.to_owned(), server_id };
        let info = Info {
            provider: "p",
            builds: vec![build(&["0000000001", "0000000002"]), build(&[])],
            nodes: vec![node("0000000007", json!("i-1")), node("0000000008", Value::Null)],
        };
        let expected = "\
ZooKeeper data for provider p

Image data:
+------------+----------+-----------------------+
| Image Name | Build ID | Upload IDs            |
+------------+----------+-----------------------+
| debian     | aa       | 0000000001,0000000002 |
| debian     | aa       |                       |
+------------+----------+-----------------------+

Nodes:
+------------+-----------+
| ID         | Server ID |
+------------+-----------+
| 0000000007 | i-1       |
| 0000000008 | None      |
+------------+-----------+
";
        assert_eq!(render(&info, Format::Table), expected);
        let expected = concat!(
            r#"{"provider":"p","builds":[{"image":"debian","id":"aa","upload_ids":["0000000001","0000000002"]},"#,
            r#"{"image":"debian","id":"aa","upload_ids":[]}],"nodes":[{"id":"0000000007","server_id":"i-1"},"#,
            r#"{"id":"0000000008","server_id":null}]}"#,
            "\n"
        );
        assert_eq!(render(&info, Format::Json), expected);
    }
}
