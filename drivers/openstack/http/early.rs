//! The server's answer to a request that it did not want to hear to its end.
//!
//! A server that refuses an upload says why and closes the connection; ureq only sees that it cannot send
//! any more. This transport, above all others, then reads what was said.

use std::io;
use std::time::Duration;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::limits::{hurry, keep_early_answer};

/// How often to read: an answer is a packet or two.
const MOST_READS: usize = 8;
/// How long to wait for more of it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Wraps connections.
#[derive(Debug, Default)]
pub(super) struct EarlyConnector(());

impl<In: Transport> Connector<In> for EarlyConnector {
    type Out = EarlyTransport<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(EarlyTransport))
    }
}

/// A connection that hears what is said to it while it sends.
#[derive(Debug)]
pub(super) struct EarlyTransport<In>(In);

impl<In: Transport> Transport for EarlyTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let sent = self.0.transmit_output(amount, timeout);
        if sent.as_ref().is_err_and(is_cut) {
            hurry(LAST_WORDS);
            for _ in 0..MOST_READS {
                if !self.0.await_input(timeout).unwrap_or(false) {
                    break;
                }
            }
            keep_early_answer(self.0.buffers().input());
        }
        sent
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

fn is_cut(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error, Error::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset))
}
