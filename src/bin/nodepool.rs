//! The `nodepool` client.

fn main() -> std::process::ExitCode {
    nodepool::cli::main()
}
