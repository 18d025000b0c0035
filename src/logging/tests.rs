//! Reading logging configurations: each form, and their mistakes.

use std::path::Path;

use slog::{FilterLevel, Level};

use crate::config::{ConfigError, FileProblem};

use super::settings::{Format, LogSettings, Output, Stream, Target};

fn read(text: &str) -> Result<LogSettings, ConfigError> {
    LogSettings::parse(Path::new("/etc/logging"), text)
}

fn settings(text: &str) -> LogSettings {
    read(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The problems without the file's name; with the line where there is no path.
fn errors(text: &str) -> Vec<String> {
    let error = read(text).expect_err(text);
    error.problems().iter().map(without_file).collect()
}

fn without_file(found: &FileProblem) -> String {
    match found.at {
        Some(at) if found.problem.path.is_empty() => format!("line {}: {}", at.line, found.problem),
        _ => found.problem.to_string(),
    }
}

/// The warnings of a file that can be used, without the file's name.
fn warnings(text: &str) -> Vec<String> {
    settings(text).warnings.iter().map(without_file).collect()
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
    assert_eq!(settings.warnings, []);
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
    let warnings: Vec<_> = settings.warnings.iter().map(without_file).collect();
    let expected = [
        "line 8: warning: the formats of the logging configuration are ignored",
        "line 36: warning: log files are not rotated by this program; let logrotate do it",
    ];
    assert_eq!(warnings, expected);
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
fn what_is_hardly_meant_is_a_warning_with_its_place() {
    let here = std::env::current_dir().unwrap();
    let found = warnings(
        "outputs: [{file: /x/a, fromat: json}, {file: rel.log}]\n\
         levels: {nodepool.bulder: debug, requests: info, mine: info}\n",
    );
    let expected = [
        "outputs[0].fromat: unknown key, did you mean 'format'?".to_owned(),
        format!(
            "outputs[1].file: warning: 'rel.log' depends on where the program is started, here it is {}/rel.log; \
             write an absolute path",
            here.display()
        ),
        "levels.nodepool.bulder: warning: no logger is named 'nodepool.bulder', so this has no effect; did you mean \
         'nodepool.builder'?"
            .to_owned(),
        "levels.mine: warning: no logger is named 'mine', so this has no effect".to_owned(),
    ];
    assert_eq!(found, expected);
    let found = warnings(
        "[loggers]\nkeys=root,b\n[handlers]\nkeys=f,g\n[logger_root]\nlevl=INFO\nhandlers=f\n[logger_b]\n\
         qualname=nodepool.bulder\n[handler_f]\nclass=FileHandler\nargs=('/x',)\n[handler_g]\nclass=FileHandler\n\
         args=('/x', 'w')\n",
    );
    let expected = [
        "line 6: warning: 'levl' is not known here, so it has no effect; did you mean 'level'?",
        "line 9: warning: no logger is named 'nodepool.bulder', so this has no effect; did you mean 'nodepool.builder'?",
        "line 15: warning: no logger has the handler 'g', so nothing is written there",
        "line 15: warning: log files are always appended to; the mode of a file handler is ignored",
        "line 15: warning: line 12 writes to /x already; a line that goes to both is there twice",
    ];
    assert_eq!(found, expected);
}

#[test]
fn outputs_to_the_same_place_are_refused_in_our_own_form() {
    let found = errors(
        "outputs: [{file: /x/a}, {console: stdout}, {file: /x/./a, level: error}, {console: stderr}, {console: stdout}, \
         {file: /x/y/../a}, {file: /../x/z/.././a}, {file: /x/../a}]",
    );
    let twice = "already, and each line would be there twice; remove one, or name another";
    let expected = [
        format!("outputs[2]: outputs[0] writes to /x/a {twice}"),
        format!("outputs[4]: outputs[1] writes to standard output {twice}"),
        format!("outputs[5]: outputs[0] writes to /x/y/../a {twice}"),
        format!("outputs[6]: outputs[0] writes to /../x/z/../a {twice}"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn one_mistake_is_not_complained_of_twice() {
    for (text, expected) in [
        (
            "outputs: [{console: printer}]",
            &["outputs[0].console: expected 'stdout' or 'stderr', found 'printer'"][..],
        ),
        ("outputs: {file: /x}", &["outputs: expected a list, found a mapping"]),
        ("outputs: [{file: ''}]", &["outputs[0].file: the path must not be empty"]),
        (
            "{version: 1, handlers: [a], loggers: {nodepool: {handlers: [a]}}, root: {handlers: [b]}}",
            &["handlers: expected a mapping, found a list"],
        ),
        (
            "{version: 1, handlers: {a: 5}, root: {handlers: [a]}}",
            &["handlers.a: expected a mapping, found a whole number"],
        ),
        (
            "{version: 1, handers: {a: {class: logging.NullHandler}}, root: {handlers: [a]}}",
            &[
                "the required key 'handlers' is missing: expected a mapping of handlers",
                "handers: unknown key, did you mean 'handlers'?",
            ],
        ),
        (
            "[loggers]\nkeys=root\n[handlrs]\nkeys=a\n[logger_root]\nhandlers=a\n",
            &["the section [handlers] is missing; did you mean 'handlrs'?"],
        ),
        (
            "[loggers]\nkeys=root\n[handlers]\nkeys=a\n[logger_root]\nhandlers=a,ab\n",
            &[
                "line 4: the section [handler_a] is missing",
                "line 6: there is no handler 'ab'; did you mean 'a'?",
            ],
        ),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn mistakes_of_our_own_form_are_named_with_their_place() {
    let found = errors(
        "outputs:\n- {file: /x, console: stdout}\n- {console: printer}\n- {file: /y, format: xml, level: loud}\n\
         - {syslog: /dev/log, facility: nosuch}\n- {file: /z, facility: daemon, fromat: json}\n- {}\n\
         levels: {nodepool: 5.5}\nlevel: debug\n",
    );
    let expected = [
        "outputs[0]: expected exactly one of 'file', 'console' and 'syslog'",
        "outputs[1].console: expected 'stdout' or 'stderr', found 'printer'",
        "outputs[2].format: expected 'text' or 'json', found 'xml'",
        "outputs[2].level: expected a level: trace, debug, info, warning, error, critical or off, found 'loud'",
        "outputs[3].facility: expected a facility of syslog, such as 'daemon' or 'local0', found 'nosuch'",
        "outputs[4].facility: belongs to an output with 'syslog'",
        "outputs[4].fromat: unknown key, did you mean 'format'?",
        "outputs[5]: expected exactly one of 'file', 'console' and 'syslog'",
        "levels.nodepool: expected a level: trace, debug, info, warning, error, critical or off, found 5.5",
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
         [logger_x]\nlevel=INFO\n[logger_y]\nqualname=kazoo\npropagate=maybe\nnonsense\n\
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
        "line 26: args: expected the path of syslog's socket, such as /dev/log",
        "line 27: the section [handler_a] is there twice",
        "line 4: the section [handler_gone] is missing",
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
        ("a: [", "line 1: not valid YAML"),
        ("zookeeper-servers: []\n", "the required key 'outputs' is missing"),
        ("outputs: []\n", "outputs: expected at least one output"),
        ("handlers: {}\n", "the required key 'version' is missing"),
        ("[loggers]\nkeys=root\n", "the section [handlers] is missing"),
    ] {
        let found = errors(text);
        assert!(found.iter().any(|line| line.starts_with(expected)), "{text}: {found:?}");
    }
    let missing = LogSettings::read(Path::new("/no/such/file")).unwrap_err().to_string();
    assert_eq!(missing, "/no/such/file: cannot be read: No such file or directory (os error 2)");
}
