// The document of `lighter init --preseed`: what is taken, and what is refused.
import { describe, expect, it } from 'vitest';
import { readPreseed } from '#src/cli/preseed/document.ts';

const EMPTY = { config: {}, networks: [], storage_pools: [], projects: [], profiles: [] };

describe('a preseed document', () => {
  it('has texts for all values, whatever they look like', () => {
    const document = `
config: {images.auto_update_interval: 15, core.https_address: "[::]:8443"}
storage_pools:
- {name: fast, driver: zfs, description: , config: {size: 5GiB}}
profiles:
- name: default
  devices:
    root: {path: /, pool: fast, type: disk, readonly: false}
cluster: null`;
    expect(readPreseed(document)).toEqual({
      ...EMPTY,
      config: { 'images.auto_update_interval': '15', 'core.https_address': '[::]:8443' },
      storage_pools: [{ name: 'fast', driver: 'zfs', description: '', config: { size: '5GiB' } }],
      profiles: [{ name: 'default', devices: { root: { path: '/', pool: 'fast', type: 'disk', readonly: 'false' } } }],
    });
  });

  it.each(['', 'networks:', 'cluster: {enabled: false}', 'profiles: []'])('%j changes nothing', (text) => {
    expect(readPreseed(text)).toEqual(EMPTY);
  });

  it.each([
    ['- a', 'must be a YAML map'],
    ['a: [', 'Not YAML'],
    ['pools: []', 'Unknown in the document: pools'],
    ['networks: {a: b}', 'must be a YAML list'],
    ['networks: [{type: bridge}]', 'needs a name'],
    ['networks: [{name: a, driver: x}]', 'Unknown in "a" of networks: driver'],
    ['profiles: [{name: a, config: {b: [1]}}]', '"b" in config of "a" must be a single value'],
    ['cluster: {enabled: true}', 'stands alone'],
  ])('%j is refused', (text, reason) => {
    expect(() => readPreseed(text)).toThrow(reason);
  });
});
