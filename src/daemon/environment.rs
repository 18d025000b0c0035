//! The environment of a daemon: without what the session of whoever started it has left there, and with the home and
//! name of the user that it runs as.
//!
//! Everything else stays, because builds inherit it, as they do from the original: an operator's own variables,
//! `NODEPOOL_…`, `DIB_…`, `OS_…`, `STATSD_…`, proxies, the locale, TMPDIR.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use nodepool_threads::{Account, change_environment};

/// What a terminal, a shell, a desktop, ssh, sudo and a service manager tell the programs of one session.
const OF_A_SESSION: [&str; 38] = [
    "_",
    "BASH_ENV",
    "CDPATH",
    "COLORTERM",
    "COLUMNS",
    "DESKTOP_SESSION",
    "DISPLAY",
    "EDITOR",
    "ENV",
    "HISTCONTROL",
    "HISTFILE",
    "HISTSIZE",
    "IFS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LESSCLOSE",
    "LESSOPEN",
    "LINES",
    "LS_COLORS",
    "MAIL",
    "MANAGERPID",
    "NOTIFY_SOCKET",
    "OLDPWD",
    "PAGER",
    "PROMPT_COMMAND",
    "PS1",
    "PWD",
    "SESSION_MANAGER",
    "SHELLOPTS",
    "SHLVL",
    "STY",
    "SYSTEMD_EXEC_PID",
    "TERM",
    "TERMCAP",
    "VISUAL",
    "WAYLAND_DISPLAY",
    "WINDOW",
    "XAUTHORITY",
];

/// What the init script and the unit of this service set for themselves: settings of the start, and folders of the
/// daemon's.
const OF_THE_SERVICE: [&str; 11] = [
    "CACHE_DIRECTORY",
    "CONFIG",
    "CONFIGURATION_DIRECTORY",
    "DAEMON",
    "DAEMON_ARGS",
    "DAEMON_USER",
    "LOGS_DIRECTORY",
    "PIDFILE",
    "RESTART_ON_UPGRADE",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
];

/// The same, by how the names begin. The linker's are those by which a session puts code into programs.
const OF_A_SESSION_ALL: [&str; 14] = [
    "BASH_FUNC_",
    "DBUS_",
    "DEBCONF_",
    "DEBIAN_FRONTEND",
    "DPKG_",
    "GNOME_",
    "GPG_",
    "LD_AUDIT",
    "LD_PRELOAD",
    "SSH_",
    "SUDO_",
    "TERM_",
    "TMUX",
    "XDG_",
];

/// No session sets these, but operators do, for diskimage-builder.
const KEPT: [&str; 2] = ["XDG_CACHE_HOME", "XDG_CONFIG_HOME"];

/// Where a daemon finds programs that was started without a PATH, as by some init systems.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Removes what belongs to the session of a daemon's starter.
pub(super) fn leave_the_session() -> io::Result<()> {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
    change_environment(of_a_session, &[("PATH", path.unwrap_or_else(|| PATH.into()))])
}

/// Sets what programs ask to know whose they are.
pub(super) fn belong_to(account: &Account) -> io::Result<()> {
    // Programs run commands with it, and the user of a service has one that refuses.
    let placeholder = ["nologin", "false", ""].map(OsStr::new);
    let shell = account.shell.file_name().filter(|name| !placeholder.contains(name));
    let shell = shell.map_or(Path::new("/bin/sh"), |_| &account.shell);
    change_environment(
        |_| false,
        &[
            ("HOME", account.home.clone().into_os_string()),
            ("USER", account.name.clone()),
            ("LOGNAME", account.name.clone()),
            ("SHELL", OsString::from(shell)),
        ],
    )
}

fn of_a_session(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let of_a_kind = OF_A_SESSION_ALL.iter().any(|kind| name.starts_with(kind));
    (of_a_kind && !KEPT.contains(&name.as_ref()))
        || OF_A_SESSION.contains(&name.as_ref())
        || OF_THE_SERVICE.contains(&name.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_session_goes_and_what_builds_may_need_stays() {
        for (name, goes) in [
            ("SSH_AUTH_SOCK", true),
            ("SUDO_USER", true),
            ("XDG_RUNTIME_DIR", true),
            ("DBUS_SESSION_BUS_ADDRESS", true),
            ("BASH_FUNC_which%%", true),
            ("LD_PRELOAD", true),
            ("TERM", true),
            ("ENV", true),
            ("DAEMON_ARGS", true),
            ("RUNTIME_DIRECTORY", true),
            ("ENVIRONMENT", false),
            ("LD_LIBRARY_PATH", false),
            ("XDG_CACHE_HOME", false),
            ("NODEPOOL_X", false),
            ("STATSD_HOST", false),
            ("OS_CLIENT_CONFIG_FILE", false),
            ("DIB_RELEASE", false),
            ("http_proxy", false),
            ("LC_ALL", false),
            ("TZ", false),
            ("TMPDIR", false),
            ("PATH", false),
        ] {
            assert_eq!(of_a_session(OsStr::new(name)), goes, "{name}");
        }
    }
}
