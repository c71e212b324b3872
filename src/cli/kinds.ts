// The kinds of things that several groups of commands change.
import { type Kind, url } from './resource.ts';

export const INSTANCE_KIND: Kind = {
  noun: 'instance',
  title: 'Instance',
  names: ['<instance>'],
  group: 'config',
  example: 'web',
  path: ([name = '']) => url('instances', name),
  fields: ['architecture', 'config', 'devices', 'ephemeral', 'profiles', 'stateful', 'description'],
  shown: ['architecture', 'config', 'devices', 'ephemeral', 'profiles', 'stateful', 'description'],
};

export const SNAPSHOT_KIND: Kind = {
  noun: 'snapshot',
  title: 'Snapshot',
  names: ['<instance/snapshot>'],
  group: 'config',
  example: 'web/snap0',
  path: ([name = '', snapshot = '']) => url('instances', name, 'snapshots', snapshot),
  fields: ['expires_at'],
  shown: [
    'expires_at',
    'architecture',
    'config',
    'created_at',
    'devices',
    'ephemeral',
    'expanded_config',
    'expanded_devices',
    'last_used_at',
    'name',
    'profiles',
    'stateful',
    'size',
  ],
};

export const PROFILE_KIND: Kind = {
  noun: 'profile',
  title: 'Profile',
  names: ['<profile>'],
  group: 'profile',
  example: 'default',
  path: ([name = '']) => url('profiles', name),
  fields: ['config', 'description', 'devices'],
  shown: ['config', 'description', 'devices', 'name', 'used_by'],
};

export const PROJECT_KIND: Kind = {
  noun: 'project',
  title: 'Project',
  names: ['<project>'],
  group: 'project',
  example: 'team',
  path: ([name = '']) => url('projects', name),
  fields: ['config', 'description'],
  shown: ['config', 'description', 'name', 'used_by'],
};

export const POOL_KIND: Kind = {
  noun: 'storage pool',
  title: 'Storage pool',
  names: ['<pool>'],
  group: 'storage',
  example: 'default',
  path: ([name = '']) => url('storage-pools', name),
  fields: ['config', 'description'],
  shown: ['config', 'description', 'name', 'driver', 'used_by', 'status', 'locations'],
};
