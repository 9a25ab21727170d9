from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from people.models import Organisation, User

admin.site.register(User, UserAdmin)
admin.site.register(Organisation)
