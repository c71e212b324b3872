"""Prints the object model of the installed Nova as JSON, in the notation of src/nova/objects/tables."""
import json

from oslo_versionedobjects import base
from oslo_versionedobjects import fields as types

from nova import objects, version
from nova.objects.base import NovaObjectRegistry

SCALARS = (
    (types.Boolean, 'boolean'),
    (types.FlexibleBoolean, 'boolean'),
    (types.Float, 'float'),
    (types.Integer, 'integer'),
    (types.DateTime, 'datetime'),
    (types.SensitiveString, 'secret'),
)


def notation(field):
    return core(field._type) + ('?' if field._nullable else '')


def core(kind):
    if isinstance(kind, types.Object):
        return 'object<%s%s>' % (kind._obj_name, '+' if kind._subclasses else '')
    for container, name in ((types.List, 'list'), (types.Set, 'set'), (types.Dict, 'dict')):
        if isinstance(kind, container):
            return '%s<%s>' % (name, notation(kind._element_type))
    return next((name for scalar, name in SCALARS if isinstance(kind, scalar)), 'string')


objects.register_all()
model = {
    name: {
        'version': classes[0].VERSION,
        'fields': {field: notation(kind) for field, kind in classes[0].fields.items()},
        'manifest': base.obj_tree_get_versions(name),
    }
    for name, classes in NovaObjectRegistry.obj_classes().items()
}
print(json.dumps({'release': version.version_string(), 'objects': model}))
