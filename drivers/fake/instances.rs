//! Where the fake cloud keeps its instances: in memory, or as files of a directory, where they outlive the process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nodepool_threads::Mutex;

use crate::api::{Error, ErrorKind, Instance, Resources};

pub(super) enum Instances {
    Memory(Mutex<BTreeMap<String, Instance>>),
    Files(PathBuf),
}

impl Instances {
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        match state_dir {
            None => Self::Memory(Mutex::new("fake cloud nodes", BTreeMap::new())),
            Some(path) => Self::Files(path.to_owned()),
        }
    }

    pub(super) fn add(&self, instance: Instance) -> Result<(), Error> {
        match self {
            Self::Memory(instances) => {
                instances.lock().insert(instance.external_id.clone(), instance);
                Ok(())
            }
            Self::Files(path) => write(&path.join(&instance.external_id), &instance).map_err(broken(path)),
        }
    }

    pub(super) fn remove(&self, external_id: &str) -> Result<(), Error> {
        match self {
            Self::Memory(instances) => {
                instances.lock().remove(external_id);
                Ok(())
            }
            // No id of ours, so that no path of another directory can be in it.
            Self::Files(_) if external_id.is_empty() || external_id.contains(['/', '.']) => Ok(()),
            Self::Files(path) => match fs::remove_file(path.join(external_id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(broken(path)(error)),
                _ => Ok(()),
            },
        }
    }

    pub(super) fn list(&self) -> Result<Vec<Instance>, Error> {
        match self {
            Self::Memory(instances) => Ok(instances.lock().values().cloned().collect()),
            Self::Files(path) => read_all(path).map_err(broken(path)),
        }
    }
}

fn broken(path: &Path) -> impl Fn(io::Error) -> Error {
    let what = format!("the fake cloud cannot use its state-dir {}", path.display());
    move |error| Error::new(ErrorKind::Transient, what.clone()).caused_by(error)
}

/// By rename, so that nobody sees half of it.
fn write(file: &Path, instance: &Instance) -> io::Result<()> {
    let resources: BTreeMap<_, _> = instance.resources.iter().collect();
    let text = serde_json::to_string(&(&instance.metadata, resources))?;
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

fn read_all(path: &Path) -> io::Result<Vec<Instance>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.contains('.') {
            continue;
        }
        let text = match fs::read_to_string(path.join(&name)) {
            // Somebody has deleted it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let (metadata, resources): (_, BTreeMap<String, i64>) = serde_json::from_str(&text)?;
        let resources = resources.into_iter().collect::<Resources>();
        found.push(Instance { external_id: name, metadata, resources });
    }
    Ok(found)
}
