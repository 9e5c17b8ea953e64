//! A request needs the fields that `google.api.field_behavior` marks as REQUIRED, and no others.

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use strongroom::proto;
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;

use crate::harness::{Caller, Service, service_test, violated_fields};

const FIELD_BEHAVIOR: &str = "google.api.field_behavior";
const REQUIRED: i32 = 2;

/// The path that an update of this method names in its mask.
const MASKS: [(&str, &str); 7] = [
    ("UpdateFile", "title"),
    ("UpdateCategory", "types"),
    ("UpdateQuota", "warning_percent"),
    ("UpdateUserQuota", "file_count_max"),
    ("UpdateWebhook", "description"),
    ("UpdateTenant", "ceiling_bytes"),
    ("UpdateShare", "note"),
];

/// These methods need one of several fields, none of which is required by itself.
const NEED_ONE_OF_SEVERAL: [&str; 4] = ["FindImportedFiles", "GrantAccess", "RevokeAccess", "ListShares"];

fn is_required(field: &FieldDescriptor) -> bool {
    let extension = field.parent_pool().get_extension_by_name(FIELD_BEHAVIOR).unwrap();
    let options = field.options();
    let behaviors = options.get_extension(&extension);
    behaviors.as_list().unwrap().contains(&Value::EnumNumber(REQUIRED))
}

fn required(message: &MessageDescriptor) -> Vec<FieldDescriptor> {
    message.fields().filter(is_required).collect()
}

/// Returns the methods that take one message.
fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let services = pool.services().filter(|service| service.full_name().starts_with("strongroom."));
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.filter(|method| !method.is_client_streaming()).collect()
}

/// Returns a message with its required fields, and with the id or name of its resource.
fn filled(method: &MethodDescriptor, descriptor: &MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let is_named = field.name() == "id" || (descriptor.name() == "UploadSpec" && field.name() == "name");
        if is_required(&field) || is_named {
            message.set_field(&field, value(method, &field));
        }
    }
    message
}

fn value(method: &MethodDescriptor, field: &FieldDescriptor) -> Value {
    const ID: &str = "0193a7a0-0000-7000-8000-000000000000";
    let text = match field.name() {
        "url" => "https://hooks.example.org/",
        "position" => "00000000000000000000000000000000",
        "name" => "contracts",
        "from_user_id" => "leaver",
        "to_user_id" => "successor",
        "reason" | "issuer" | "external_id" => "text",
        _ => ID,
    };
    let text = Value::String(text.to_owned());
    match field.kind() {
        Kind::String if field.is_list() => Value::List(vec![text]),
        Kind::String => text,
        Kind::Int32 => Value::I32(1),
        Kind::Int64 => Value::I64(1),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(mask) if mask.full_name() == "google.protobuf.FieldMask" => {
            let (_, path) = MASKS.iter().find(|(name, _)| *name == method.name()).unwrap();
            let mut message = DynamicMessage::new(mask);
            let paths = Value::List(vec![Value::String((*path).to_owned())]);
            message.set_field_by_name("paths", paths);
            Value::Message(message)
        }
        Kind::Message(nested) if field.is_list() => {
            Value::List(vec![Value::Message(filled(method, &nested))])
        }
        Kind::Message(duration) if duration.full_name() == "google.protobuf.Duration" => {
            let mut message = DynamicMessage::new(duration);
            message.set_field_by_name("seconds", Value::I64(60));
            Value::Message(message)
        }
        Kind::Message(nested) => Value::Message(filled(method, &nested)),
        kind => panic!("{}: no value for {kind:?}", field.full_name()),
    }
}

async fn send(
    s: &Service,
    caller: &Caller,
    method: &MethodDescriptor,
    message: DynamicMessage,
) -> Result<(), Status> {
    let mut client = Grpc::new(s.channel.clone());
    client.ready().await.unwrap();
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", caller.token).parse().unwrap());
    let codec = ProstCodec::<DynamicMessage, ()>::default();
    let path = path.parse().unwrap();
    match method.is_server_streaming() {
        // The messages that follow the first one do not matter here.
        true => {
            let response = client.server_streaming(request, path, codec).await?;
            response.into_inner().message().await.map(|_| ())
        }
        false => client.unary(request, path, codec).await.map(|_| ()),
    }
}

/// Returns each required field with its path: those of the request, and those of a resource that is created.
fn required_paths(method: &MethodDescriptor) -> Vec<Vec<FieldDescriptor>> {
    let mut paths = Vec::new();
    for field in required(&method.input()) {
        if let Kind::Message(nested) = field.kind()
            && method.name().starts_with("Create")
        {
            paths.extend(required(&nested).into_iter().map(|inner| vec![field.clone(), inner]));
        }
        paths.push(vec![field]);
    }
    paths
}

#[test]
fn a_request_needs_its_required_fields_and_no_others() {
    let pool = DescriptorPool::decode(proto::DESCRIPTOR_SET).unwrap();
    service_test(|s| async move {
        let mut count = 0;
        for method in methods(&pool) {
            let is_admin = method.full_name().starts_with("strongroom.admin.");
            let caller = match method.name() {
                "AddCredits" | "DeductCredits" => s.cashier(),
                _ if is_admin => s.operator(),
                _ => s.ada(),
            };
            for path in required_paths(&method) {
                let mut message = filled(&method, &method.input());
                match path.as_slice() {
                    [field] => message.clear_field(field),
                    [outer, inner] => {
                        message.get_field_mut(outer).as_message_mut().unwrap().clear_field(inner)
                    }
                    _ => unreachable!(),
                }
                let name = path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".");
                let about = format!("{} without {name}", method.full_name());
                let refused = send(&s, &caller, &method, message).await.expect_err(&about);
                let fields = violated_fields(&refused);
                let is_named = fields.iter().any(|field| {
                    field
                        .strip_prefix(&name)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                });
                assert!(refused.code() == Code::InvalidArgument && is_named, "{about}: {refused:?}");
                count += 1;
            }
            let outcome = send(&s, &caller, &method, filled(&method, &method.input())).await;
            let refused = outcome.err().filter(|status| status.code() == Code::InvalidArgument);
            let mut fields = refused.map(|status| violated_fields(&status)).unwrap_or_default();
            if !method.name().starts_with("Create") {
                // The values of a required message can be wrong: an update sets the field in its mask to zero.
                let required = required(&method.input());
                fields.retain(|path| {
                    !required.iter().any(|field| path.starts_with(&format!("{}.", field.name())))
                });
            }
            if !NEED_ONE_OF_SEVERAL.contains(&method.name()) {
                assert_eq!(fields, Vec::<String>::new(), "{} needs no other fields", method.full_name());
            }
        }
        assert!(count > 50, "{count} required fields");
        for upload in s.ada().list_upload_ids(10).await {
            s.ada().cancel_upload(&upload).await.unwrap();
        }
    });
}
