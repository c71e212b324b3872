// The name of an instance on its host, from instance_name_template (a Python format).
import type { NovaObject } from '#src/nova/objects/object.ts';

/** `instance-%08x` takes the id; `%(uuid)s`, `%(hostname)s` … take fields. A template that cannot be filled gives the uuid. */
export function instanceName(instance: NovaObject<'Instance'>, template: string): string {
  const fields: Readonly<Record<string, unknown>> = {
    id: instance.get('id'),
    uuid: instance.get('uuid'),
    hostname: instance.find('hostname'),
    display_name: instance.find('display_name'),
    project_id: instance.find('project_id'),
    user_id: instance.find('user_id'),
  };
  let isComplete = true;
  const name = template.replaceAll(
    /%(?:\((?<field>\w+)\))?(?<width>0?\d*)(?<type>[dxXs%])/g,
    (...match: readonly unknown[]) => {
      const groups = match.at(-1) as { field?: string; width: string; type: string };
      if (groups.type === '%') return '%';
      const value = fields[groups.field ?? 'id'];
      if (value === undefined || value === null) isComplete = false;
      return formatted(value, groups.type, groups.width);
    },
  );
  return isComplete && name !== '' ? name : instance.get('uuid');
}

function formatted(value: unknown, type: string, width: string): string {
  const digits = type === 's' || typeof value !== 'number' ? String(value) : inBase(value, type);
  return digits.padStart(Number(width) || 0, width.startsWith('0') ? '0' : ' ');
}

function inBase(value: number, type: string): string {
  if (type === 'd') return String(value);
  const hex = value.toString(16);
  return type === 'X' ? hex.toUpperCase() : hex;
}
