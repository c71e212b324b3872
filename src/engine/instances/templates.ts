// Applies the templates of an instance's image to its root before it starts (lxd-engine-contract section 2.8).
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MountedRoot } from '#drivers/storage/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ImageMetadata } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import type { Expanded } from './expansion.ts';
import { type WriteInside, writeInside } from './rootfs-files.ts';
import { renderTemplate, type TemplateScope, type TemplateValue } from './template-engine.ts';
import { parseBoolean } from './values.ts';

export type TemplateTrigger = 'create' | 'copy' | 'rename' | 'start';

export interface TemplateRun {
  readonly record: InstanceRecord;
  readonly expanded: Expanded;
  /** Absent: the image had none. */
  readonly metadata: Pick<ImageMetadata, 'templates'> | undefined;
  /** Where the template files are. */
  readonly templatesPath: string;
  readonly root: MountedRoot;
  readonly triggers: readonly TemplateTrigger[];
}

/** An image that says nothing about its host name gets the instance's all the same when the instance is new or renamed. */
export async function applyTemplates(run: TemplateRun): Promise<void> {
  const { record, metadata, triggers } = run;
  const templates = Object.entries(metadata?.templates ?? {});
  const isNew = triggers.some((trigger) => trigger !== 'start');
  if (isNew && !templates.some(([path]) => path === '/etc/hostname')) {
    await write(run, '/etc/hostname', { content: `${record.name}\n` });
  }
  for (const trigger of triggers) {
    for (const [path, template] of templates.filter(([, { when }]) => when.includes(trigger))) {
      const content = renderTemplate(await readTemplate(run, template.template), scopeOf(run, path, trigger));
      await write(run, path, { content, createOnly: template.createOnly });
    }
  }
}

/** As container root would. */
async function write({ root }: TemplateRun, path: string, file: Pick<WriteInside, 'content' | 'createOnly'>) {
  const owner = { uid: root.owners?.uidBase ?? 0, gid: root.owners?.gidBase ?? 0 };
  await writeInside({ ...file, root: root.rootfsPath, path, owner });
}

async function readTemplate({ templatesPath }: TemplateRun, name: string): Promise<string> {
  if (name.includes('/') || name === '..') throw new AppError('invalid', `Invalid template name: ${name}`);
  return readFile(join(templatesPath, name), 'utf8');
}

function scopeOf({ record, expanded, metadata }: TemplateRun, path: string, trigger: TemplateTrigger): TemplateScope {
  const { config, devices } = expanded;
  const container = {
    name: record.name,
    type: record.type,
    architecture: record.architecture,
    privileged: String(parseBoolean(config['security.privileged'])),
    ephemeral: String(record.ephemeral),
  };
  return {
    trigger,
    path,
    container,
    instance: container,
    config,
    devices,
    properties: metadata?.templates[path]?.properties ?? {},
    config_get: configGet(config),
  };
}

function configGet(config: ConfigMap) {
  return (key: TemplateValue, fallback: TemplateValue): TemplateValue => {
    const value = typeof key === 'string' ? config[key] : undefined;
    return value ?? fallback;
  };
}

export function isTrigger(text: string | undefined): text is TemplateTrigger {
  return text === 'create' || text === 'copy' || text === 'rename';
}
