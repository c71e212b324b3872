"""Exceptions as nova.exception has them, for both ends of the interoperability tests."""


class NovaException(Exception):
    code = 500
    msg_fmt = 'An unknown exception occurred.'

    def __init__(self, message=None, **kwargs):
        self.kwargs = kwargs
        self.kwargs.setdefault('code', self.code)
        super().__init__(message or self.msg_fmt % kwargs)


class InstanceNotFound(NovaException):
    code = 404
    msg_fmt = 'Instance %(instance_id)s could not be found.'
