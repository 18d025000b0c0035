//! What each key of `nodepool.yaml` means and what it is without being given: for each row of spec/config.md a test
//! that begins with the key's name. Mistakes in them are tested beside the code that finds them, and what comes of a
//! key in a running builder in `tests/builder`.

mod diskimages;
mod providers;
mod secure_file;
mod top_level;
