"""Cinder's NFS driver with snapshots that are copies.

The stock one asks the compute for help when a volume is in use: a guest of QEMU goes on with a qcow2 file. Containers have
no qcow2, and most storage snapshots by itself: so does this one, in use or not.
"""
import os

from cinder import coordination
from cinder.volume.drivers import nfs


class CopyingNfsDriver(nfs.NfsDriver):

    def _copy(self, source, target):
        self._execute('cp', '--sparse=always', '--reflink=auto', '--', source, target, run_as_root=True)
        self._set_rw_permissions(target)

    def _path(self, snapshot):
        return os.path.join(self._local_volume_dir(snapshot.volume), 'snapshot-%s' % snapshot.id)

    @coordination.synchronized('{self.driver_prefix}-{snapshot.volume.id}')
    def create_snapshot(self, snapshot):
        self._copy(self.local_path(snapshot.volume), self._path(snapshot))

    @coordination.synchronized('{self.driver_prefix}-{snapshot.volume.id}')
    def delete_snapshot(self, snapshot):
        self._delete(self._path(snapshot))

    def _copy_volume_from_snapshot(self, snapshot, volume, volume_size,
                                   src_encryption_key_id=None, new_encryption_key_id=None):
        target = self.local_path(volume)
        self._copy(self._path(snapshot), target)
        self._execute('truncate', '--size', '%dG' % volume_size, target, run_as_root=True)
