//! What we offer an SSH server, and how it is chosen from.

use ring::agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey, X25519};
use ring::rand::{SecureRandom, SystemRandom};

/// A type of host key.
pub(super) struct KeyType {
    /// Its name, which is also the first word of its blob.
    pub(super) name: &'static str,
    /// The algorithms that use such a key, the best first.
    pub(super) algorithms: &'static [&'static str],
}

/// The types of host keys in the order of the original's list. `ssh-rsa` is for servers of 2014 and before: the
/// key is the same, and its weak signature means nothing here.
pub(super) const KEY_TYPES: [KeyType; 5] = [
    KeyType { name: "ssh-ed25519", algorithms: &["ssh-ed25519"] },
    KeyType { name: "ecdsa-sha2-nistp256", algorithms: &["ecdsa-sha2-nistp256"] },
    KeyType { name: "ecdsa-sha2-nistp384", algorithms: &["ecdsa-sha2-nistp384"] },
    KeyType { name: "ecdsa-sha2-nistp521", algorithms: &["ecdsa-sha2-nistp521"] },
    KeyType { name: "ssh-rsa", algorithms: &["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"] },
];

/// A method of key exchange. All of these use message 30 for our public value, and the answer 31 begins with
/// the host key (RFC 4253 section 8, RFC 5656 section 4, RFC 8731).
#[derive(Clone, Copy)]
pub(super) struct Kex {
    pub(super) name: &'static str,
    public: Public,
}

#[derive(Clone, Copy)]
enum Public {
    /// A point on a curve.
    Curve(&'static agreement::Algorithm),
    /// A number below a prime of so many bytes.
    Group(usize),
}

/// The methods, the best first. The groups are for network devices and old systems.
pub(super) static KEXES: [Kex; 7] = [
    Kex { name: "curve25519-sha256", public: Public::Curve(&X25519) },
    Kex { name: "curve25519-sha256@libssh.org", public: Public::Curve(&X25519) },
    Kex { name: "ecdh-sha2-nistp256", public: Public::Curve(&ECDH_P256) },
    Kex { name: "ecdh-sha2-nistp384", public: Public::Curve(&ECDH_P384) },
    Kex { name: "diffie-hellman-group14-sha256", public: Public::Group(256) },
    Kex { name: "diffie-hellman-group16-sha512", public: Public::Group(512) },
    Kex { name: "diffie-hellman-group14-sha1", public: Public::Group(256) },
];

/// Ciphers, of which one must be common to both sides. None is ever used: the connection ends before.
pub(super) const CIPHERS: &[&str] = &[
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-cbc",
    "aes256-cbc",
    "3des-cbc",
];

/// Message authentication codes, likewise.
pub(super) const MACS: &[&str] = &[
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "umac-128-etm@openssh.com",
    "umac-128@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1-etm@openssh.com",
    "hmac-sha1",
];

/// Compression, likewise.
pub(super) const COMPRESSIONS: &[&str] = &["none", "zlib@openssh.com", "zlib"];

/// So many random bytes. `None` when the system gives none.
pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

impl Kex {
    /// A public value to begin the exchange with, as the string that message 30 has. `None` when the system gives
    /// no random bytes.
    pub(super) fn public_value(self) -> Option<Vec<u8>> {
        match self.public {
            Public::Curve(curve) => {
                let key = EphemeralPrivateKey::generate(curve, &SystemRandom::new()).ok()?;
                Some(key.compute_public_key().ok()?.as_ref().to_vec())
            }
            // Nobody will compute the secret, so any number will do that could be a power of two in the group:
            // these primes begin with 64 ones, so that one beginning with 01 is below them, and positive.
            Public::Group(size) => {
                let mut number = vec![0; size];
                SystemRandom::new().fill(&mut number).ok()?;
                number[0] = number[0] & 0x3f | 0x40;
                Some(number)
            }
        }
    }
}
