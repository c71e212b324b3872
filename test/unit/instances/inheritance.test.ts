// What instances take from their images.
import { expect, it } from 'vitest';
import type { ImageRecord } from '#src/engine/db/records.ts';
import { inheritedProfiles } from '#src/engine/instances/inheritance.ts';

const image: ImageRecord = {
  id: 1,
  project: 'default',
  fingerprint: 'ab'.repeat(32),
  filename: '',
  sizeBytes: 1,
  isPublic: false,
  autoUpdate: false,
  cached: false,
  architecture: 'x86_64',
  type: 'container',
  properties: {},
  profiles: [],
  profilesOf: 'default',
  createdAt: '',
  expiresAt: '',
  lastUsedAt: '',
  uploadedAt: '',
  updateSource: null,
};

it.each([[['default']], [['p1', 'p2']], [[]]])('are the profiles of the image: %j', (profiles) => {
  expect(inheritedProfiles({ type: 'image', image: { ...image, profiles } })).toEqual(profiles);
});

it('is the default profile where there is nothing to take from', () => {
  expect(inheritedProfiles({ type: 'none' })).toEqual(['default']);
});
