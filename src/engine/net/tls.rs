//! TLS by rustls and ring: an own CA or the host's, a client certificate, another server name.

use super::NetError;
use crate::model::job::Tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::sync::Arc;

/// Reads the files and makes a configuration. Files are read at each dial, so that a renewed certificate is taken up.
/// Blocking: small files, but the host's store can be a few hundred of them.
pub(super) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, NetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| NetError::Tls { address: "this host".into(), seen: e.to_string() })?
        .with_root_certificates(roots(tls)?);
    let config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, e))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|e| unusable(cert, e))?
        }
        (Some(one), None) | (None, Some(one)) => {
            return Err(unusable(one, "a client certificate needs both a certificate file and a key file"));
        }
        (None, None) => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn roots(tls: &Tls) -> Result<RootCertStore, NetError> {
    let mut store = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|e| unusable(path, e))?;
            }
        }
        // A broken file in the host's store must not keep us from the others.
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let list: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(|found| found.collect::<Result<_, _>>())
        .map_err(|e| unusable(path, e))?;
    if list.is_empty() {
        return Err(unusable(path, "it holds no certificate"));
    }
    Ok(list)
}

fn unusable(path: &str, seen: impl std::fmt::Display) -> NetError {
    NetError::TlsFile { path: path.to_owned(), seen: seen.to_string() }
}

/// The name to expect in the certificate.
pub(super) fn server_name(tls: &Tls, address: &str, host: &str) -> Result<ServerName<'static>, NetError> {
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    ServerName::try_from(name.clone())
        .map_err(|_| NetError::BadAddress { address: address.to_owned(), seen: format!("{name:?} is no server name") })
}

/// `DnsName("redis.test")` as people write it.
fn plain_name(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(presented);
    inner.trim_matches('"')
}

/// What a rustls error means for the operator.
pub(super) fn explain(address: &str, error: &rustls::Error) -> NetError {
    let address = address.to_owned();
    let seen = error.to_string();
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidForNameContext { expected, presented } => NetError::TlsName {
                address,
                expected: expected.to_str().into_owned(),
                presented: if presented.is_empty() {
                    "no name".into()
                } else {
                    presented.iter().map(|n| plain_name(n)).collect::<Vec<_>>().join(", ")
                },
            },
            CertificateError::NotValidForName => {
                NetError::TlsName { address, expected: "the host".into(), presented: "another name".into() }
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => NetError::TlsExpired { address, seen },
            // The second: another authority of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                NetError::TlsUnknownAuthority { address }
            }
            _ => NetError::Tls { address, seen },
        },
        rustls::Error::AlertReceived(alert) => {
            use rustls::AlertDescription as A;
            match alert {
                A::CertificateRequired | A::BadCertificate | A::UnknownCA | A::CertificateUnknown => {
                    NetError::TlsClientCertificate { address, seen }
                }
                _ => NetError::Tls { address, seen },
            }
        }
        rustls::Error::InvalidMessage(_) => NetError::TlsNotSpoken { address, seen },
        _ => NetError::Tls { address, seen },
    }
}
