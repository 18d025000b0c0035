//! Reading logging configurations: each form, and their mistakes.

use std::fs;
use std::path::PathBuf;

use slog::{FilterLevel, Level};
use uuid::Uuid;

use super::settings::{Format, LogSettings, Output, Stream, Target};

struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nodepool-logging-{}", Uuid::new_v4()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn settings(text: &str) -> LogSettings {
    LogSettings::read(&TempFile::new(text).0).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The problems without the file's name.
fn errors(text: &str) -> Vec<String> {
    let file = TempFile::new(text);
    let error = LogSettings::read(&file.0).expect_err(text).to_string();
    let prefix = format!("{}: ", file.0.display());
    error
        .lines()
        .map(|line| line.strip_prefix(&prefix).unwrap_or_else(|| panic!("{line}")).to_owned())
        .collect()
}

fn goes_to(settings: &LogSettings, logger: &str, level: Level) -> Vec<usize> {
    let outputs = settings.levels.outputs(logger, level);
    outputs.filter(|index| settings.outputs[*index].level.accepts(level)).collect()
}

#[test]
fn our_own_form_has_outputs_and_levels() {
    let settings = settings(
        "outputs:\n- {file: /x/a.log, level: info}\n- {console: stderr, format: json}\n\
         - {syslog: /dev/log, facility: local0, level: error}\n\
         levels: {nodepool: debug, nodepool.zk: warning, requests: info}\n",
    );
    let expected = [
        Output { target: Target::File("/x/a.log".into()), level: FilterLevel::Info, format: Format::Text },
        Output { target: Target::Console(Stream::Stderr), level: FilterLevel::Trace, format: Format::Json },
        Output {
            target: Target::Syslog { socket: "/dev/log".into(), facility: 16 },
            level: FilterLevel::Error,
            format: Format::Text,
        },
    ];
    assert_eq!(settings.outputs, expected);
    assert_eq!(goes_to(&settings, "nodepool.builder", Level::Debug), [1]);
    assert_eq!(goes_to(&settings, "nodepool.builder", Level::Info), [0, 1]);
    assert_eq!(goes_to(&settings, "nodepool.zk.session", Level::Info), [0; 0]);
    assert_eq!(goes_to(&settings, "nodepool.zk.session", Level::Error), [0, 1, 2]);
    assert_eq!(goes_to(&settings, "other", Level::Debug), [0; 0], "info is the most that an output asks for");
    assert_eq!(settings.warnings, ["no logger here has any of these names: requests"]);
}

#[test]
fn without_levels_an_output_gets_what_it_asks_for() {
    for (text, debug) in [
        ("outputs: [{file: x}]", false),
        ("outputs: [{file: x, level: debug}]", true),
        ("{outputs: [{file: x}], levels: {root: debug}}", true),
        ("{outputs: [{file: x, level: debug}], levels: {root: info}}", false),
    ] {
        let found = !goes_to(&settings(text), "nodepool.builder", Level::Debug).is_empty();
        assert_eq!(found, debug, "{text}");
        assert_eq!(goes_to(&settings(text), "nodepool.builder", Level::Info), [0], "{text}");
    }
}

#[test]
fn the_originals_ini_form_is_read() {
    let settings = settings(
        "# a comment\n[loggers]\nkeys=root, nodepool,kazoo\n\n[handlers]\nkeys=console,debug,sys,none\n\n\
         [formatters]\nkeys=simple\n\n[logger_root]\nlevel=WARNING\nhandlers=console\n\n\
         [logger_nodepool]\nlevel=DEBUG\nhandlers=debug,\n  sys\nqualname=nodepool\npropagate: 0\n\n\
         [logger_kazoo]\nlevel=ERROR\nhandlers=debug\nqualname=kazoo\n\n\
         [handler_console]\nlevel=NOTSET\nclass=StreamHandler\nformatter=simple\nargs=(sys.stdout,)\n\n\
         [handler_debug]\nlevel=DEBUG\nclass=logging.handlers.TimedRotatingFileHandler\n\
         args=('/var/log/nodepool/50%%.log', 'H', 8, 30,)\n\n\
         [handler_sys]\nlevel = ERROR\nclass = handlers.SysLogHandler\n\
         args = ('/dev/log', handlers.SysLogHandler.LOG_LOCAL1)\n\n[handler_none]\nclass=NullHandler\nargs=()\n\n\
         [formatter_simple]\nformat=%(asctime)s %(levelname)s %(name)s: %(message)s\ndatefmt=\n",
    );
    let targets: Vec<_> = settings.outputs.iter().map(|output| output.target.clone()).collect();
    let syslog = Target::Syslog { socket: "/dev/log".into(), facility: 17 };
    let file = Target::File("/var/log/nodepool/50%.log".into());
    assert_eq!(targets, [Target::Console(Stream::Stdout), file, syslog]);
    assert_eq!(goes_to(&settings, "nodepool.builder", Level::Debug), [1]);
    assert_eq!(goes_to(&settings, "nodepool.builder", Level::Error), [1, 2]);
    assert_eq!(goes_to(&settings, "nodepool.zk.session", Level::Warning), [0; 0]);
    assert_eq!(goes_to(&settings, "nodepool.zk.session", Level::Error), [0, 1]);
    assert_eq!(goes_to(&settings, "other", Level::Warning), [0]);
    assert_eq!(settings.warnings.len(), 2, "formats and rotation: {:?}", settings.warnings);
}

/// The file that the original's users have most often: its defaults, written out.
#[test]
fn the_originals_yaml_form_is_recognised_also_as_json() {
    let text = r#"{"version": 1, "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout",
        "level": "INFO"}}, "loggers": {"nodepool": {"handlers": ["console"], "level": "INFO"}}}"#;
    let settings = settings(text);
    assert_eq!(goes_to(&settings, "nodepool.builder", Level::Info), [0]);
    assert_eq!(goes_to(&settings, "nodepool.builder", Level::Debug), [0; 0]);
    assert_eq!(goes_to(&settings, "other", Level::Critical), [0; 0]);
}

#[test]
fn mistakes_of_our_own_form_are_named_with_their_place() {
    let found = errors(
        "outputs:\n- {file: /x, console: stdout}\n- {console: printer}\n- {file: /x, format: xml, level: loud}\n\
         - {syslog: /dev/log, facility: nosuch}\n- {file: /x, facility: daemon, fromat: json}\n- {}\n\
         levels: {nodepool: 5.5}\nlevel: debug\n",
    );
    let expected = [
        "outputs[0]: expected exactly one of 'file', 'console' and 'syslog'",
        "outputs[1].console: expected 'stdout' or 'stderr', found 'printer'",
        "outputs[2].format: expected 'text' or 'json', found 'xml'",
        "outputs[2].level: expected a level: trace, debug, info, warning, error, critical or off",
        "outputs[3].facility: 'nosuch' is not a facility of syslog, such as 'daemon' or 'local0'",
        "outputs[4].facility: belongs to an output with 'syslog'",
        "outputs[4].fromat: unknown key, did you mean 'format'?",
        "outputs[5]: expected exactly one of 'file', 'console' and 'syslog'",
        "levels.nodepool: expected a level: trace, debug, info, warning, error, critical or off",
        "level: unknown key, did you mean 'levels'?",
    ];
    for line in expected {
        assert!(found.iter().any(|found| found == line), "{line}\n--\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
}

#[test]
fn mistakes_of_the_ini_form_are_named_with_their_line() {
    let found = errors(
        "[loggers]\nkeys=root,x,y\n[handlers]\nkeys=a,b,c,d,e,gone\n[logger_root]\nlevel=LOUD\nhandlers=nosuch\n\
         [logger_x]\nlevel=INFO\n[logger_y]\nqualname=y\npropagate=maybe\nnonsense\n\
         [handler_a]\nclass=handlers.SMTPHandler\n[handler_b]\nclass=FileHandler\nargs=(os.path.join('a'),)\n\
         [handler_c]\nclass=FileHandler\nargs=('%(dir)s/x',)\n[handler_d]\nargs=()\n\
         [handler_e]\nclass=handlers.SysLogHandler\nargs=(('localhost', 514),)\n[handler_a]\n",
    );
    let all = found.join("\n");
    for expected in [
        "line 6: expected a level",
        "line 7: there is no handler 'nosuch'",
        "line 8: expected 'qualname = NAME'",
        "line 12: expected 'propagate = 0'",
        "line 13: expected 'key = value', found 'nonsense'",
        "line 15: the handler class 'handlers.SMTPHandler' is not supported",
        "line 18: args: only strings, numbers, names and tuples of these are understood, found '('a'),)'",
        "line 21: args: values of other keys",
        "line 22: expected 'class = StreamHandler'",
        "line 26: args: expected the path of syslog's socket",
        "line 27: the section [handler_a] is there twice",
        "the section [handler_gone] is missing",
    ] {
        assert!(found.iter().any(|found| found.starts_with(expected)), "{expected}\n--\n{all}");
    }
    assert_eq!(found.len(), 12, "{all}");
}

#[test]
fn what_is_no_logging_configuration_is_refused() {
    for (text, expected) in [
        ("", "is empty; expected 'outputs'"),
        ("# nothing\n", "is empty; expected 'outputs'"),
        ("just words", "expected a mapping, found a string"),
        ("a: [", "line 2, column 1: not valid YAML"),
        ("zookeeper-servers: []\n", "the required key 'outputs' is missing"),
        ("outputs: []\n", "outputs: expected at least one output"),
        ("handlers: {}\n", "the required key 'version' is missing"),
        ("[loggers]\nkeys=root\n", "the section [handlers] is missing"),
    ] {
        let found = errors(text);
        assert!(found.iter().any(|line| line.starts_with(expected)), "{text}: {found:?}");
    }
    let missing = LogSettings::read(std::path::Path::new("/no/such/file")).unwrap_err().to_string();
    assert_eq!(missing, "/no/such/file: cannot be read: No such file or directory (os error 2)");
}
