// The kinds of things that networks are made of.
import { type Kind, url } from '../../resource.ts';

export const NETWORK_KIND: Kind = {
  noun: 'network',
  title: 'Network',
  names: ['<network>'],
  group: 'network',
  example: 'br0',
  path: ([name = '']) => url('networks', name),
  fields: ['config', 'description'],
  shown: ['config', 'description', 'name', 'type', 'used_by', 'managed', 'status', 'locations'],
};

export const ACL_KIND: Kind = {
  noun: 'network ACL',
  title: 'Network ACL',
  names: ['<acl>'],
  group: 'network acl',
  example: 'web',
  path: ([name = '']) => url('network-acls', name),
  fields: ['config', 'description', 'egress', 'ingress'],
  shown: ['name', 'description', 'egress', 'ingress', 'config', 'used_by'],
};

export const FORWARD_KIND: Kind = {
  noun: 'network forward',
  title: 'Network forward',
  names: ['<network>', '<listen address>'],
  group: 'network forward',
  example: 'br0 192.0.2.1',
  path: ([network = '', address = '']) => url('networks', network, 'forwards', address),
  fields: ['config', 'description', 'ports'],
  shown: ['description', 'config', 'ports', 'listen_address', 'location'],
};

export const PEER_KIND: Kind = {
  noun: 'network peer',
  title: 'Network peer',
  names: ['<network>', '<peer>'],
  group: 'network peer',
  example: 'ovn1 peer1',
  path: ([network = '', peer = '']) => url('networks', network, 'peers', peer),
  fields: ['config', 'description'],
  shown: ['description', 'config', 'name', 'target_project', 'target_network', 'status', 'used_by'],
};

export const ZONE_KIND: Kind = {
  noun: 'network zone',
  title: 'Network Zone',
  names: ['<zone>'],
  group: 'network zone',
  example: 'example.net',
  path: ([name = '']) => url('network-zones', name),
  fields: ['config', 'description'],
  shown: ['description', 'config', 'name', 'used_by'],
};

export const RECORD_KIND: Kind = {
  noun: 'network zone record',
  title: 'Network zone record',
  names: ['<zone>', '<record>'],
  group: 'network zone record',
  example: 'example.net www',
  path: ([zone = '', record = '']) => url('network-zones', zone, 'records', record),
  fields: ['config', 'description', 'entries'],
  shown: ['description', 'entries', 'config', 'name'],
};
