"""Exports of lists, which belong to users."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from tenants.tables import IsolateTable, of_oneself, own


class Migration(migrations.Migration):

    dependencies = [
        ("tenants", "0004_audit"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ListExport',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('model', models.CharField(help_text='A model, such as ingest.ingestevent.', max_length=100, verbose_name='list')),
                ('query', models.TextField(blank=True, help_text='The filters and the search, as in the address of the list.')),
                ('format', models.CharField(choices=[('csv', 'CSV'), ('jsonl', 'JSON lines')], default='csv', max_length=8)),
                ('tenants', models.JSONField(help_text='The ids of the tenants that the user was a member of.', null=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('finished_at', models.DateTimeField(null=True)),
                ('error', models.TextField(blank=True, help_text='Why it ended before its last row.')),
                ('failures', models.PositiveSmallIntegerField(default=0, help_text='Steps in a row that failed.')),
                ('stepped_at', models.DateTimeField(null=True)),
                ('steps', models.PositiveIntegerField(default=0)),
                ('place', models.CharField(blank=True, help_text='Where the next step begins. Empty: at the top.', max_length=200)),
                ('done', models.FloatField(help_text='The part of the list that was read, from 0 to 1, if that is known.', null=True)),
                ('rows', models.PositiveIntegerField(default=0)),
                ('bytes', models.PositiveBigIntegerField(default=0)),
                ('files', models.PositiveIntegerField(default=0)),
                ('counts', models.JSONField(default=dict, help_text='Rows by the id of their tenant.')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'export',
                'db_table': 'list_exports',
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='ListExportPart',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('step', models.PositiveIntegerField()),
                ('file', models.PositiveIntegerField(help_text='Counted from 1.')),
                ('content', models.BinaryField()),
                ('export', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='parts', to='exports.listexport')),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'list_export_parts',
            },
        ),
        migrations.AddIndex(
            model_name='listexport',
            index=models.Index(fields=['created_at'], name='list_exports_created_at'),
        ),
        migrations.AddIndex(
            model_name='listexport',
            index=models.Index(fields=['user', 'id'], name='list_exports_user'),
        ),
        migrations.AddConstraint(
            model_name='listexportpart',
            constraint=models.UniqueConstraint(fields=('export', 'step'), name='list_export_parts_once'),
        ),
        # A page begins an export. What is in it, and how far it is, only the worker writes.
        IsolateTable("list_exports", of_oneself(), changed=own(), changes=["INSERT"]),
        IsolateTable("list_export_parts", of_oneself(), changes=()),
    ]
