//! Certificates on disk.

use super::Context;
use super::stored::{UNLIMITED, fill, once, read, refuse_in_use, reload};
use crate::error::{Error, Reason, Result};
use crate::proto::storage as pb;
use crate::storage::{Certificates, StoredFile};

const DESCRIPTION: &str = "managed SSL file";

fn message(file: &StoredFile) -> pb::StorageCertificate {
    pb::StorageCertificate {
        description: Some(DESCRIPTION.into()),
        file: file.path.display().to_string(),
        storage_name: file.name.clone(),
        ..pb::StorageCertificate::default()
    }
}

fn with_facts(file: &StoredFile, facts: Certificates) -> pb::StorageCertificate {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    pb::StorageCertificate {
        size: i64::try_from(file.size).ok(),
        not_after: time(facts.not_after),
        not_before: time(facts.not_before),
        issuers: some(facts.issuers.join(", ")),
        domains: some(facts.domains.join(", ")),
        ip_addresses: some(facts.ip_addresses.join(", ")),
        algorithm: some(facts.algorithm),
        serial: some(facts.serial),
        subject: some(facts.subject),
        sha1_finger_print: some(facts.sha1),
        sha256_finger_print: some(facts.sha256),
        ..message(file)
    }
}

fn time(seconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string())
}

pub(super) async fn list(
    context: Context,
    _: pb::ListStorageCertificatesRequest,
) -> Result<pb::ListStorageCertificatesResponse> {
    let mut certificates = Vec::new();
    for file in context.certificates.list().await? {
        // A file may be gone by now; what is no certificate is somebody else's.
        let Ok(bytes) = read(&context.certificates, &file.name).await else { continue };
        if Certificates::parse(&bytes).is_ok() {
            certificates.push(message(&file));
        }
    }
    Ok(pb::ListStorageCertificatesResponse { certificates })
}

pub(super) async fn get(
    context: Context,
    request: pb::GetStorageCertificateRequest,
) -> Result<pb::GetStorageCertificateResponse> {
    let file = context.certificates.get(&request.name).await?;
    let facts = Certificates::parse(&read(&context.certificates, &file.name).await?)?;
    Ok(pb::GetStorageCertificateResponse { certificate: Some(with_facts(&file, facts)) })
}

pub(super) async fn create(
    context: Context,
    request: pb::CreateStorageCertificateRequest,
) -> Result<pb::CreateStorageCertificateResponse> {
    let name = &request.name;
    if let Ok(file) = context.certificates.get(name).await {
        let message = format!("certificate '{}' exists already", file.name);
        return Err(Error::new(Reason::ObjectExists, message));
    }
    let facts = Certificates::parse(&request.data)?;
    let (mut file, writer) = context.certificates.create(name, UNLIMITED).await?;
    file.size = fill(&context, writer, once(request.data)).await?;
    let reload_id = reload(&context, request.force_reload, false).await?;
    Ok(pb::CreateStorageCertificateResponse { certificate: Some(with_facts(&file, facts)), reload_id })
}

pub(super) async fn replace(
    context: Context,
    request: pb::ReplaceStorageCertificateRequest,
) -> Result<pb::ReplaceStorageCertificateResponse> {
    let mut file = context.certificates.get(&request.name).await?;
    let facts = Certificates::parse(&request.data)?;
    let writer = context.certificates.replace(&file.name, UNLIMITED).await?;
    file.size = fill(&context, writer, once(request.data)).await?;
    let reload_id = reload(&context, request.force_reload, request.skip_reload).await?;
    Ok(pb::ReplaceStorageCertificateResponse { certificate: Some(with_facts(&file, facts)), reload_id })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteStorageCertificateRequest,
) -> Result<pb::DeleteStorageCertificateResponse> {
    let file = context.certificates.get(&request.name).await?;
    refuse_in_use(&context, &file)?;
    context.certificates.delete(&file.name).await?;
    let reload_id = reload(&context, request.force_reload, request.skip_reload).await?;
    Ok(pb::DeleteStorageCertificateResponse { reload_id })
}
